"""The step that chooses ranges of the tensors to be quantized, by one method."""

from __future__ import annotations

from pathlib import Path

from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import RANGES, Fp32Graph, Ranges, Statistics
from cnnx.quant.methods import FILE
from cnnx.quant.ranges import calibration_of
from cnnx.store.own_code import own_code


def calibration_step(
    steps: Steps, statistics: Statistics, *, images_digest: str, method: str, graph: Fp32Graph
) -> Ranges:
    """Ranges of the tensors to be quantized and maxima of all tensors, in `calibration.json`.

    The graph is that of the statistics.
    """
    inputs = {
        "statistics": statistics.key,
        "images": images_digest,
        "method": method,
        "code": own_code(__name__),
    }

    def fill(folder: Path, _: Progress) -> None:
        calibration = calibration_of(
            statistics.read(),
            method=method,
            images_digest=images_digest,
            of_file=_of_file(graph) if method == FILE else None,
        )
        (folder / RANGES).write_text(calibration.to_json(), encoding="utf-8")

    return Ranges(steps.make(f"ranges ({method})", "calibration", inputs, fill))


def _of_file(graph: Fp32Graph) -> dict[str, float]:
    from cnnx.graph.load import load_model

    scales = graph.scales
    return scales.ranges(load_model(graph.model)) if scales is not None else {}
