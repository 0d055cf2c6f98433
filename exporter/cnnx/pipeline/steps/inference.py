"""ONNX graphs run on ONNX Runtime: the logits that steps and searches compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.data.normalize import normalize
from cnnx.errors import BuildFailed, InputRefused
from cnnx.machine.environment import installed_version
from cnnx.pipeline.progress import Progress
from cnnx.recipe import Preprocessing, Recipe

RUNNER = runtimes.NAMES[runtimes.GRAPHS]
"""For `own_code` of a step that runs graphs: a runtime is loaded by its name."""

# PyTorch and ONNX Runtime must agree in FP32 to this, as max|a-b| / max|b|.
EXPORT_TOLERANCE = 1e-4
PARITY_IMAGES = 4
_BATCH = 8


def open_here(file: Path) -> runtimes.Session:
    """A session of an ONNX graph, or the reason why it cannot run here.

    Raises:
        EnvironmentLacks: the package, driver or GPU it needs is absent.
    """
    runtime = runtimes.get(runtimes.GRAPHS)
    if reason := runtime.cannot_run():
        raise reason
    return runtime.open(file)


def ran_by() -> dict[str, str | None]:
    """What results of ONNX graphs depend on besides graph and pictures: a part of their steps' keys."""
    return {
        "onnx": installed_version("onnx"),
        "onnxruntime": installed_version("onnxruntime"),
        "device": str(runtimes.get(runtimes.GRAPHS).device()),
    }


def logits_of(
    session: runtimes.Session, pixels: NDArray[np.uint8], preprocessing: Preprocessing, *, progress: Progress
) -> NDArray[np.float32]:
    """A session's logits for crops (N, H, W, C): (N, classes)."""
    parts = []
    for start in range(0, len(pixels), _BATCH):
        outputs = session.run(normalize(pixels[start : start + _BATCH], preprocessing))
        parts.append(outputs[session.output_names[0]])
        progress(min(start + _BATCH, len(pixels)), len(pixels))
    return np.concatenate(parts)


def graph_logits(
    graph: Path, pixels: NDArray[np.uint8], preprocessing: Preprocessing, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Logits of an ONNX graph on ONNX Runtime, for crops (N, H, W, C): (N, classes)."""
    session = open_here(graph)
    logits = logits_of(session, pixels, preprocessing, progress=progress or (lambda *_: None))
    session.close()
    return logits


def refuse_nonfinite(logits: NDArray[np.float32], recipe: Recipe) -> None:
    """Refuse an original that has no answer in FP32: there is nothing to agree with.

    Raises:
        InputRefused: a logit is NaN or infinite.
    """
    bad = int((~np.isfinite(logits).all(axis=1)).sum())
    if bad:
        raise InputRefused(
            f"the original gives logits that are not finite for {bad} of {len(logits)} pictures",
            where=recipe.name,
            hint="check its weights and its preprocessing: the logits of an image must be finite",
        )


def check_parity(
    graph: Path,
    pixels: NDArray[np.uint8],
    logits: NDArray[np.float32],
    recipe: Recipe,
    *,
    what: str = "the exported FP32 graph is not the original",
    hint: str = "report it with the model's definition; nothing made from this graph can be trusted",
) -> None:
    """Refuse a graph whose logits for these pictures are not the original's.

    Raises:
        BuildFailed: they are further apart than `EXPORT_TOLERANCE`.
        InputRefused: they are not finite.
    """
    exported = graph_logits(graph, pixels, recipe.preprocessing)
    expected = logits[: len(exported)]
    refuse_nonfinite(expected, recipe)
    error = float(np.abs(exported - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    if not error <= EXPORT_TOLERANCE:
        raise BuildFailed(
            f"{what}: max|a-b|/max|b| is {error:.2g}, at most {EXPORT_TOLERANCE:g} is allowed",
            where=recipe.name,
            hint=hint,
        )
