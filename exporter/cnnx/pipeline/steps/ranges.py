"""The step that chooses ranges of the tensors to be quantized, by one method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import RANGES, Fp32Graph, Ranges, Statistics
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import FILE
from cnnx.quant.observation import Observation
from cnnx.quant.ranges import calibration_of
from cnnx.recipe import RangeOverride
from cnnx.store.own_code import own_code


def calibration_step(
    steps: Steps,
    statistics: Statistics,
    *,
    images_digest: str,
    method: str,
    graph: Fp32Graph,
    overrides: Sequence[RangeOverride] = (),
) -> Ranges:
    """Ranges of the tensors to be quantized and maxima of all tensors, in `calibration.json`.

    The graph is that of the statistics.

    Raises:
        RecipeError: an override matches no layer.
    """
    inputs = {
        "statistics": statistics.key,
        "images": images_digest,
        "method": method,
        **({"overrides": [dataclasses.asdict(each) for each in overrides]} if overrides else {}),
        "code": own_code(__name__),
    }

    def fill(folder: Path, _: Progress) -> None:
        seen = statistics.read()
        calibration = calibration_of(
            seen,
            method=method,
            images_digest=images_digest,
            of_file=_of_file(graph) if method == FILE else None,
        )
        if overrides:
            calibration = _with_overrides(calibration, seen, graph, overrides)
        (folder / RANGES).write_text(calibration.to_json(), encoding="utf-8")

    return Ranges(steps.make(f"ranges ({method})", "calibration", inputs, fill))


def _of_file(graph: Fp32Graph) -> dict[str, float]:
    from cnnx.graph.load import load_model

    scales = graph.scales
    return scales.ranges(load_model(graph.model)) if scales is not None else {}


def _with_overrides(
    calibration: Calibration, seen: Observation, graph: Fp32Graph, overrides: Sequence[RangeOverride]
) -> Calibration:
    """The calibration with other ranges for what some layers read."""
    from cnnx.graph.load import load_model
    from cnnx.graph.policy.placement import refuse_idle

    nodes = load_model(graph.model).graph.node
    refuse_idle(
        [each.match for each in overrides], [node.name for node in nodes], where="calibration.overrides"
    )
    ranges = dict(calibration.ranges)
    for each in overrides:
        others = calibration_of(seen, method=each.method, images_digest=calibration.images_digest).ranges
        read = {node.input[0] for node in nodes if fnmatchcase(node.name, each.match)}
        ranges |= {tensor: others[tensor] for tensor in read & others.keys()}
    return dataclasses.replace(calibration, ranges=ranges)
