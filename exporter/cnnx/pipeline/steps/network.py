"""The step that brings a user's ONNX file into canonical form and compares the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BuildFailed, CnnxError
from cnnx.machine.environment import installed_version
from cnnx.pipeline.steps.artefacts import MODEL, NOTES, Fp32Graph
from cnnx.pipeline.steps.inference import EXPORT_TOLERANCE, RUNNER, open_here, relative_error
from cnnx.store.cache import Store
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from cnnx.graph.entry import Network

# FP16 weights give FP16 activations in the file, and FP32 activations in the canonical form.
_FP16_TOLERANCE = 2e-2
_TRIES = 2


def canonical_graph(file: Path, network: Network) -> Fp32Graph:
    """Keep a network's canonical form, after comparing its outputs with those of the unchanged file.

    Raises:
        BuildFailed: the outputs differ.
        GraphError: ONNX Runtime does not run the canonical form.
    """
    inputs = {
        "onnx": network.digest,
        "logits": network.logits,
        "code": own_code(__name__, "cnnx.graph", RUNNER),
        "versions": {name: installed_version(name) for name in ("onnx", "onnxruntime")},
    }

    def fill(folder: Path) -> None:
        from cnnx.graph.load import save_model

        save_model(network.model, folder / MODEL)
        notes = (*network.notes, *_compared(file, folder / MODEL, network))
        (folder / NOTES).write_text(json.dumps(notes) + "\n", encoding="utf-8")

    return Fp32Graph(Store().make("network", inputs, fill))


def _compared(file: Path, canonical: Path, network: Network) -> tuple[str, ...]:
    """Compare the outputs that both have, for random images.

    Returns:
        a note if ONNX Runtime does not run the unchanged file.
    """
    ours = open_here(canonical)
    images = _random_images(network)
    given = images.transpose(0, 2, 3, 1) if network.nhwc else images
    try:
        theirs = open_here(file)
        expected = [theirs.run(np.ascontiguousarray(batch)) for batch in np.array_split(given, _TRIES)]
    except CnnxError as error:
        return (f"ONNX Runtime does not run the file as it is, so the two were not compared: {error.what}",)
    theirs.close()
    found = [ours.run(np.ascontiguousarray(batch)) for batch in np.array_split(images, _TRIES)]
    ours.close()
    limit = _FP16_TOLERANCE if network.widened else EXPORT_TOLERANCE
    for before, after in zip(expected, found, strict=True):
        for name in before.keys() & after.keys():
            apart = relative_error(before[name], after[name])
            if not apart <= limit:
                raise BuildFailed(
                    f"the canonical form of the graph gives another {name}: max|a-b|/max|b| is {apart:.2g}, "
                    f"the limit is {limit:g}",
                    where=file,
                    hint="export the model again with opset 19; please report this with the file",
                )
    return ()


def _random_images(network: Network) -> NDArray[np.float32]:
    """Images for each try: one, or as many as a fixed batch takes."""
    batch, *shape = network.input_shape
    count = _TRIES * (batch if isinstance(batch, int) else 1)
    random = np.random.default_rng(0)
    if network.pixels:
        return random.integers(0, 256, (count, *shape)).astype(np.float32)
    return random.standard_normal((count, *shape), np.float32)
