"""The step that runs calibration images through a graph; its result serves every range method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnx.options import Precision, Scales
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import STATISTICS, Fp32Graph, Statistics
from cnnx.pipeline.steps.inference import RUNNER
from cnnx.pipeline.steps.observation import observed, observed_from
from cnnx.quant.observation import Observation
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from onnx import ModelProto

    from cnnx.data.crops import Crops


def statistics_step(
    steps: Steps,
    graph: Fp32Graph,
    crops: Crops,
    recipe: Recipe,
    *,
    precision: Precision,
    parts: Sequence[Statistics] = (),
    title: str = "calibration images through the graph",
) -> Statistics:
    """Run the calibration images through the graph and keep the statistics of its activations.

    The file `statistics.npz` serves every range method. A step that was stopped resumes from its last save.

    Args:
        steps: runs the step.
        graph: the FP32 graph.
        crops: calibration images.
        recipe: the network's recipe.
        precision: precision to plan for.
        parts: results of this step for folds that together contain these images, batch by batch. If given,
            they are merged, and no image is run.
        title: title of the step.
    """
    inputs = statistics_inputs(graph, crops, recipe, precision=precision)
    partial = steps.store.partial("statistics", inputs)

    def fill(folder: Path, progress: Progress) -> None:
        from cnnx.graph.load import load_model

        if parts:
            merged(part.read() for part in parts).save(folder / STATISTICS)
            return
        model = load_model(graph.model)
        sampled, one_sided = tensors_of(model, recipe, precision=precision)
        seen = observed(
            model,
            crops.pixels,
            recipe,
            sampled=sampled,
            one_sided=one_sided,
            folder=folder,
            partial=partial,
            progress=progress,
        )
        seen.save(folder / STATISTICS)
        partial.remove()

    return Statistics(steps.make(title, "statistics", inputs, fill))


def statistics_inputs(
    graph: Fp32Graph, crops: Crops, recipe: Recipe, *, precision: Precision
) -> dict[str, Any]:
    """Everything that `statistics_step` depends on."""
    return {
        **observed_from(graph, crops, recipe),
        "precision": precision,
        # Neither of these changes what is observed.
        "policy": dataclasses.asdict(
            dataclasses.replace(recipe.precision, first_rounding="nearest", remedies=True)
        ),
        "code": own_code(__name__, RUNNER),
    }


def tensors_of(
    model: ModelProto, recipe: Recipe, *, precision: Precision
) -> tuple[tuple[str, ...], frozenset[str]]:
    """The tensors of an FP32 graph that get a histogram, and those among them that are never negative."""
    from cnnx.graph.passes.center import never_negative
    from cnnx.graph.policy.placement import plan_layers, tensors_to_observe

    tensors: dict[str, None] = {}
    # FP32 scales can quantize layers that FP16 scales cannot; one pass serves both types.
    types: tuple[Scales, ...] = ("fp16", "fp32") if precision == "int8" else ()
    for scales in types:
        plan = plan_layers(model, precision=precision, policy=recipe.precision, maxima=None, scales=scales)
        tensors.update(dict.fromkeys(tensors_to_observe(model, plan)))
    return tuple(tensors), frozenset(never_negative(model) & tensors.keys())


def merged(parts: Iterable[Observation]) -> Observation:
    """The statistics of all images, from those of parts of them in any order."""
    each = iter(parts)
    whole = next(each)
    for part in each:
        whole.merge(part)
    return whole
