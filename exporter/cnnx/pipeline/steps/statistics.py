"""What the calibration images show of a graph; serves every range method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.options import Precision, Scales
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import STATISTICS, Fp32Graph, Statistics
from cnnx.pipeline.steps.inference import RUNNER
from cnnx.pipeline.steps.observation import observed, observed_from
from cnnx.quant.observation import Observation
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from cnnx.data.crops import Crops


def statistics_step(
    steps: Steps,
    graph: Fp32Graph,
    crops: Crops,
    recipe: Recipe,
    *,
    precision: Precision,
    parts: Sequence[Statistics] = (),
    title: str = "calibration pictures through the graph",
) -> Statistics:
    """What the calibration pictures show of the graph: `statistics.npz`, which serves every method.

    A step that was stopped goes on from what it saved on the way.

    Args:
        parts: this step's results for sets that together are these pictures, batch for batch: they are
            added up instead.
    """
    inputs = {
        **observed_from(graph, crops, recipe),
        "precision": precision,
        "policy": dataclasses.asdict(recipe.precision),
        "code": own_code(__name__, RUNNER),
    }
    partial = steps.store.partial("statistics", inputs)

    def fill(folder: Path, progress: Progress) -> None:
        from cnnx.graph.load import load_model
        from cnnx.graph.policy.placement import plan_layers, tensors_to_observe

        if parts:
            _merged(parts).save(folder / STATISTICS)
            return
        model = load_model(graph.model)
        tensors: dict[str, None] = {}
        # FP32 scales quantize layers that FP16 could not hold; one pass serves either type.
        types: tuple[Scales, ...] = ("fp16", "fp32") if precision == "int8" else ()
        for scales in types:
            plan = plan_layers(
                model, precision=precision, policy=recipe.precision, maxima=None, scales=scales
            )
            tensors.update(dict.fromkeys(tensors_to_observe(model, plan)))
        seen = observed(
            model,
            crops.pixels,
            recipe,
            sampled=tuple(tensors),
            folder=folder,
            partial=partial,
            progress=progress,
        )
        seen.save(folder / STATISTICS)
        partial.remove()

    return Statistics(steps.make(title, "statistics", inputs, fill))


def _merged(parts: Sequence[Statistics]) -> Observation:
    first, *others = (part.read() for part in parts)
    for other in others:
        first.merge(other)
    return first
