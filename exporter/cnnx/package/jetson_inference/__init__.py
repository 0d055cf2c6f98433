"""A graph that undoes jetson-inference's preprocessing, with its cache's file names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.bundle import MODEL, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.normalize import normalize
from cnnx.graph.load import load_model, save_model
from cnnx.graph.passes.one_image import with_one_image
from cnnx.graph.passes.raw_input import with_raw_input, with_softmax
from cnnx.package import seen
from cnnx.package.conditions import refuse_large_batches, refuse_other_scaling, refuse_pixels
from cnnx.package.copies import fill_in
from cnnx.package.graphs import DIFFERENCE, Difference, compared
from cnnx.package.words import class_names, safe_name
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.input_format import InputFormat
from cnnx.preprocessing.words import described
from cnnx.store.digests import digest_of_file

_PROGRAM = Path(__file__).parent / "program"
_CONSUMER = "jetson-inference"
_GIVEN = Preprocessing()
"""What imageNet::preProcess gives an ONNX network: RGB, with ImageNet's mean and deviation."""
_LABEL_BYTES = 480  # imageNet reads lines of up to 511 bytes


def write(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """See `cnnx.package.Adapter`."""
    bundle.verify()
    refuse_pixels(bundle, _CONSUMER)
    refuse_large_batches(bundle, _CONSUMER)
    refuse_other_scaling(bundle, _CONSUMER)
    recipe = recipe_of(bundle.manifest)
    preprocessing, (_, height, width) = recipe.preprocessing, recipe.input.shape
    difference, output = _change_graph(bundle, folder / MODEL)
    (folder / f"{MODEL}.sha256sum").write_text(digest_of_file(folder / MODEL) + "\n", encoding="utf-8")
    (folder / "labels.txt").write_bytes(b"".join(_label(*pair) for pair in enumerate(class_names(bundle))))
    network = {
        "input": bundle.manifest.inputs[0].name,
        "output": output,
        "size": [height, width],
        "fit": preprocessing.fit,
        "resize": preprocessing.resize,
        "fill": (preprocessing.fill * 3)[:3][:: -1 if preprocessing.color == "bgr" else 1],
        "interpolation": preprocessing.interpolation,
    }
    (folder / "network.json").write_text(json.dumps(network, indent=1) + "\n", encoding="utf-8")
    for file in (_PROGRAM / "build.sh", _PROGRAM / "classify.py", Path(seen.__file__)):
        shutil.copyfile(file, folder / file.name)
    (folder / "build.sh").chmod(0o755)
    fill_in(
        _PROGRAM / "README.md",
        folder / "README.md",
        name=safe_name(bundle),
        precision=bundle.manifest.precision.upper(),
        height=height,
        width=width,
        difference=difference,
        file=DIFFERENCE,
        preprocessing=described(preprocessing, recipe.input.shape, recipe.input_format),
    )
    return (str(difference),)


def _change_graph(bundle: Bundle, out: Path) -> tuple[Difference, str]:
    """Write the graph for imageNet; returns the difference, and the name of its output."""
    recipe = recipe_of(bundle.manifest)
    wanted, model, changes = recipe.preprocessing, load_model(bundle.model), []
    same = (wanted.color, wanted.divisor, wanted.mean, wanted.std) == (
        _GIVEN.color,
        _GIVEN.divisor,
        _GIVEN.mean,
        _GIVEN.std,
    )
    if not same:
        form = InputFormat("float32", "NCHW", "rgb")
        model = with_raw_input(model, form, wanted, shape=recipe.input.shape, undo=_GIVEN)
        changes = ["ImageNet's normalization is undone, and the network's is in the graph"]
    model = with_one_image(with_softmax(model))
    save_model(model, out)

    def feed(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What imageNet gives for pixels of the network's size."""
        pixels = np.repeat(crops, 3, axis=3) if crops.shape[3] == 1 else crops
        return normalize(pixels[..., ::-1] if wanted.color == "bgr" else pixels, _GIVEN)

    changes.append("Softmax is in the graph, and the batch is 1, without an axis at the output")
    difference = compared(bundle, out, feed, changes="; ".join(changes), softmax=True)
    return difference, model.graph.output[0].name


def _label(number: int, name: str) -> bytes:
    """A line of labels.txt; without a synset (here the index), imageNet looks for one in the name."""
    text = name.encode("utf-8")[:_LABEL_BYTES].decode("utf-8", "ignore")
    return f"n{number:08} {text}\n".encode()
