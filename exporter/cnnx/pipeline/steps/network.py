"""The step that brings a user's ONNX file into canonical form and compares the two."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BuildFailed, CnnxError
from cnnx.machine.environment import installed_version
from cnnx.pipeline.steps.artefacts import MODEL, NOTES, SCALES, Fp32Graph
from cnnx.pipeline.steps.inference import EXPORT_TOLERANCE, RUNNER, open_here, relative_error
from cnnx.store.cache import Store
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from cnnx.graph.entry import Network

# FP16 weights give FP16 activations in the file, and FP32 activations in the canonical form.
_FP16_TOLERANCE = 2e-2
# A difference in the last digit can change an integer, and thereby every layer that follows.
_QDQ_TOLERANCE = 0.2
# Clipping and rounding change the logits of random images by less than this share of the largest.
_ROUNDED = 0.5
_TRIES = 2
_UNQUANTIZED = "unquantized.onnx"
_Outputs = list[dict[str, NDArray[np.float32]]]


def canonical_graph(file: Path, network: Network) -> Fp32Graph:
    """Keep a network's canonical form, after comparing its outputs with those of the unchanged file.

    Raises:
        BuildFailed: the outputs differ.
        GraphError: ONNX Runtime does not run the canonical form.
    """
    inputs = {
        "onnx": network.digest,
        "logits": network.logits,
        "without_qdq": network.scales is not None,
        "code": own_code(__name__, "cnnx.graph", RUNNER),
        "versions": {name: installed_version(name) for name in ("onnx", "onnxruntime")},
    }

    def fill(folder: Path) -> None:
        from cnnx.graph.load import save_model

        save_model(network.model, folder / MODEL)
        if network.scales is not None:
            (folder / SCALES).write_text(network.scales.to_json(), encoding="utf-8")
        plain = _without_qdq(file, folder, network)
        notes = (*network.notes, *_compared(plain, folder / MODEL, network, where=file))
        (folder / _UNQUANTIZED).unlink(missing_ok=True)
        if network.scales is not None:
            notes = (*notes, *_far_apart(file, folder / MODEL, network))
        (folder / NOTES).write_text(json.dumps(notes) + "\n", encoding="utf-8")

    return Fp32Graph(Store().make("network", inputs, fill))


def _without_qdq(file: Path, folder: Path, network: Network) -> Path:
    """The file, or if the network has lost its Q/DQ, a copy without these but otherwise unchanged."""
    if network.scales is None:
        return file
    from cnnx.graph.entry import unquantized
    from cnnx.graph.load import save_model

    save_model(unquantized(file), folder / _UNQUANTIZED)
    return folder / _UNQUANTIZED


def _compared(file: Path, canonical: Path, network: Network, *, where: Path) -> tuple[str, ...]:
    """Compare the outputs that both have, for random images; `where`: the user's file.

    Returns:
        a note if ONNX Runtime does not run the unchanged file.
    """
    ours = _outputs(canonical, network)
    try:
        expected = _outputs(file, network, nhwc=network.nhwc)
    except CnnxError as error:
        return (f"ONNX Runtime does not run the file as it is, so the two were not compared: {error.what}",)
    limit = _FP16_TOLERANCE if network.widened else EXPORT_TOLERANCE
    if any(node.op_type == "QuantizeLinear" for node in network.model.graph.node):
        limit = _QDQ_TOLERANCE
    for name, apart in _errors(expected, ours).items():
        if not apart <= limit:
            raise BuildFailed(
                f"the canonical form of the graph gives another {name}: max|a-b|/max|b| is {apart:.2g}, "
                f"the limit is {limit:g}",
                where=where,
                hint="export the model again with opset 19; please report this with the file",
            )
    return ()


def _far_apart(file: Path, canonical: Path, network: Network) -> tuple[str, ...]:
    """A note if the Q/DQ of a file change its outputs by more than rounding would."""
    with contextlib.suppress(CnnxError):
        found = _errors(_outputs(file, network, nhwc=network.nhwc), _outputs(canonical, network))
        if (apart := max(found.values(), default=0.0)) > _ROUNDED:
            return (
                f"With and without the Q/DQ of the file, outputs differ by {apart:.0%} on random images. "
                "Check the verdict with the file itself as --reference.",
            )
    return ()


def _errors(expected: _Outputs, found: _Outputs) -> dict[str, float]:
    """The largest relative error of each output that both have."""
    apart: dict[str, float] = {}
    for before, after in zip(expected, found, strict=True):
        for name in before.keys() & after.keys():
            apart[name] = max(apart.get(name, 0.0), relative_error(before[name], after[name]))
    return apart


def _outputs(file: Path, network: Network, *, nhwc: bool = False) -> _Outputs:
    """The outputs of a graph for random images, in batches."""
    images = _random_images(network)
    given = images.transpose(0, 2, 3, 1) if nhwc else images
    session = open_here(file)
    found = [session.run(np.ascontiguousarray(batch)) for batch in np.array_split(given, _TRIES)]
    session.close()
    return found


def _random_images(network: Network) -> NDArray[np.float32]:
    """Images for each try: one, or as many as a fixed batch takes."""
    batch, *shape = network.input_shape
    count = _TRIES * (batch if isinstance(batch, int) else 1)
    random = np.random.default_rng(0)
    if network.pixels:
        return random.integers(0, 256, (count, *shape)).astype(np.float32)
    return random.standard_normal((count, *shape), np.float32)
