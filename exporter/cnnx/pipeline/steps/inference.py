"""Runs ONNX graphs with ONNX Runtime, for the logits that steps and searches compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.data.network_input import network_input
from cnnx.errors import BuildFailed, InputRefused
from cnnx.machine.environment import installed_version
from cnnx.pipeline.progress import Progress
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.input_format import InputFormat, input_format
from cnnx.recipe import Recipe

RUNNER = runtimes.NAMES[runtimes.GRAPHS]
"""For `own_code` of a step that runs graphs, as runtimes are loaded by name."""

# Largest difference allowed between PyTorch and ONNX Runtime in FP32, as max|a-b| / max|b|.
EXPORT_TOLERANCE = 1e-4
PARITY_IMAGES = 4
LOGITS_BATCH = 8
"""Images of each run of `logits_of`; the last may have fewer."""


def open_here(file: Path, *, threads: int | None = None) -> runtimes.Session:
    """Open an ONNX graph with ONNX Runtime.

    Args:
        file: the graph.
        threads: CPU threads; None: all physical cores.

    Raises:
        EnvironmentLacks: a package, driver or GPU that it needs is missing.
    """
    runtime = runtimes.get(runtimes.GRAPHS)
    if reason := runtime.cannot_run():
        raise reason
    return runtime.open(file, runtimes.RunOptions(threads=threads))


def ran_by() -> dict[str, str | None]:
    """What results of ONNX graphs depend on in addition to graph and images, for the keys of steps."""
    return {
        "onnx": installed_version("onnx"),
        "onnxruntime": installed_version("onnxruntime"),
        "device": str(runtimes.get(runtimes.GRAPHS).device()),
    }


def logits_of(
    session: runtimes.Session,
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    form: InputFormat | None = None,
    progress: Progress,
) -> NDArray[np.float32]:
    """A session's logits for crops (N, H, W, C): (N, classes). Its input is normalized by default."""
    parts = []
    form = form or input_format("float32-nchw", preprocessing)
    for start in range(0, len(pixels), LOGITS_BATCH):
        outputs = session.run(network_input(pixels[start : start + LOGITS_BATCH], preprocessing, form))
        parts.append(outputs[session.output_names[0]])
        progress(min(start + LOGITS_BATCH, len(pixels)), len(pixels))
    return np.concatenate(parts)


def graph_logits(
    graph: Path,
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    form: InputFormat | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Logits of an ONNX graph on ONNX Runtime, for crops (N, H, W, C); see `logits_of`."""
    session = open_here(graph)
    logits = logits_of(session, pixels, preprocessing, form=form, progress=progress or (lambda *_: None))
    session.close()
    return logits


def refuse_nonfinite(logits: NDArray[np.float32], recipe: Recipe) -> None:
    """Raise if the original's logits are not finite, as no agreement can be computed then.

    Raises:
        InputRefused: a logit is NaN or infinite.
    """
    bad = int((~np.isfinite(logits).all(axis=1)).sum())
    if bad:
        raise InputRefused(
            f"the original's logits are not finite for {bad} of {len(logits)} images",
            where=recipe.name,
            hint="check its weights (--weights) and its preprocessing",
        )


def relative_error(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """max|a-b| / max|b| over finite values; infinite if shapes, or the places of finite values, differ."""
    finite = np.isfinite(expected)
    if expected.shape != found.shape or not np.array_equal(finite, np.isfinite(found)):
        return float("inf")
    gap = np.abs(expected[finite].astype(np.float64) - found[finite]).max(initial=0)
    return float(gap / max(np.abs(expected[finite]).max(initial=0), 1e-30))


def check_parity(
    graph: Path,
    pixels: NDArray[np.uint8],
    logits: NDArray[np.float32],
    recipe: Recipe,
    *,
    what: str = "the exported FP32 graph and the original give different logits",
    hint: str = "please report this with the model's definition; nothing made from this graph can be trusted",
) -> None:
    """Raise if a graph's logits for these images differ from the original's.

    Raises:
        BuildFailed: the logits differ by more than `EXPORT_TOLERANCE`.
        InputRefused: the original's logits are not finite.
    """
    exported = graph_logits(graph, pixels, recipe.preprocessing)
    expected = logits[: len(exported)]
    refuse_nonfinite(expected, recipe)
    error = relative_error(expected, exported)
    if not error <= EXPORT_TOLERANCE:
        raise BuildFailed(
            f"{what}: max|a-b|/max|b| is {error:.2g}, the limit is {EXPORT_TOLERANCE:g}",
            where=recipe.name,
            hint=hint,
        )
