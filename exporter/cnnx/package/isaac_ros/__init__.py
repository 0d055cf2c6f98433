"""A ROS 2 launch file for Isaac ROS: crop, resize, image encoder and TensorRT node."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cnnx.bundle import MODEL, Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import recipe_of
from cnnx.package import seen
from cnnx.package.conditions import pads, refuse_large_batches, refuse_pixels
from cnnx.package.copies import engines_of, fill_in
from cnnx.package.words import class_names, safe_name, trtexec
from cnnx.preprocessing.words import described

_PROGRAM = Path(__file__).parent / "program"
_CONSUMER = "Isaac ROS's image encoder"
_ENCODINGS = {"rgb": "rgb8", "bgr": "bgr8", "gray": "mono8"}
_ENGINE = "model.engine"


def write(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """See `cnnx.package.Adapter`."""
    bundle.verify()
    refuse_pixels(bundle, _CONSUMER)
    refuse_large_batches(bundle, _CONSUMER)
    padded = pads(bundle, _CONSUMER)
    recipe = recipe_of(bundle.manifest)
    preprocessing, (_, height, width) = recipe.preprocessing, recipe.input.shape
    scale = preprocessing.divisor / 255  # the encoder divides by 255
    network = {
        "input": bundle.manifest.inputs[0].name,
        "output": bundle.manifest.outputs[0].name,
        "batch": bundle.manifest.batch[1],
        "size": [height, width],
        "encoding": _ENCODINGS[preprocessing.color],
        "mean": [mean * scale for mean in preprocessing.mean],
        "stddev": [std * scale for std in preprocessing.std],
        "fit": preprocessing.fit,
        "resize": preprocessing.resize,
        "pads": padded,
        "classes": class_names(bundle),
        "trtexec": trtexec(bundle, onnx=MODEL, engine=_ENGINE),
    }
    text = json.dumps(network, indent=1, ensure_ascii=False)
    (folder / "network.json").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(bundle.model, folder / MODEL)
    for file in (_PROGRAM / "classify.launch.py", _PROGRAM / "print_classes.py", Path(seen.__file__)):
        shutil.copyfile(file, folder / file.name)
    engines = [engine for engine in engines_of(bundle, "tensorrt") if engine.dla_core is None]
    names = _copy_engines(bundle, engines, folder)
    fill_in(
        _PROGRAM / "README.md",
        folder / "README.md",
        name=safe_name(bundle),
        trtexec=network["trtexec"],
        engines=_engines_in_words(engines, names),
        encoding=network["encoding"],
        scaling=_scaling_in_words(padded=padded, height=height, width=width),
        preprocessing=described(preprocessing, recipe.input.shape, recipe.input_format),
    )
    if engines:
        return ()
    return ("The bundle has no TensorRT engine: README.md has the command to build one.",)


def _copy_engines(bundle: Bundle, engines: list[Engine], folder: Path) -> list[str]:
    """Copy the engines; a single one gets the name that the launch file expects."""
    names = [_ENGINE] if len(engines) == 1 else [f"{engine.identity}.engine" for engine in engines]
    for engine, name in zip(engines, names, strict=True):
        shutil.copyfile(bundle.engine_file(engine), folder / name)
    return names


def _engines_in_words(engines: list[Engine], names: list[str]) -> str:
    if not engines:
        return "Build the engine first, on the machine that will run it:"
    if len(engines) == 1:
        version = engines[0].runtime_version
        return (
            f"`{_ENGINE}` is an engine of TensorRT {version}. If this machine has another release or GPU, "
            "build it again:"
        )
    listed = ", ".join(f"`{name}`" for name in names)
    return (
        f"Choose an engine with `engine_file_path:=$PWD/<file>`: {listed}. If none fits this machine's "
        "TensorRT and GPU, build one:"
    )


def _scaling_in_words(*, padded: bool, height: int, width: int) -> str:
    if padded:
        return "The image encoder fits images into the network's input and pads them with black."
    return (
        f"The launch file cuts out the part that the network sees and resizes it to {width} x {height}: the "
        "encoder itself would pad images, or take only those of the network's size."
    )
