"""The step that equalizes the channels of the FP32 graph, for INT8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import MODEL, Fp32Graph
from cnnx.pipeline.steps.inference import PARITY_IMAGES, RUNNER, check_parity, graph_logits
from cnnx.pipeline.steps.observation import observed, observed_from
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from cnnx.data.crops import Crops

# Equalization needs a channel's largest value only roughly, so few images suffice.
_EQUALIZE_IMAGES = 64


def equalize_step(steps: Steps, graph: Fp32Graph, crops: Crops, recipe: Recipe) -> Fp32Graph:
    """The FP32 graph with its channels scaled by their maxima over the first calibration images.

    Raises:
        BuildFailed: the equalized graph gives different logits.
    """
    inputs = {**observed_from(graph, crops, recipe), "code": own_code(__name__, RUNNER)}

    def fill(folder: Path, progress: Progress) -> None:
        from cnnx.graph.load import load_model, save_model
        from cnnx.graph.passes.equalize import equalize

        pixels = crops.pixels[:_EQUALIZE_IMAGES]
        model = load_model(graph.model)
        seen = observed(model, pixels, recipe, folder=folder, progress=progress)
        equalize(model, {name: seen.channel_maxima(name) for name in seen.watched})
        save_model(model, folder / MODEL)
        few = pixels[:PARITY_IMAGES]
        check_parity(
            folder / MODEL,
            few,
            graph_logits(graph.model, few, recipe.preprocessing),
            recipe,
            what="equalizing the channels changed the graph's logits",
            hint="export with --no-equalize, and please report this",
        )

    return Fp32Graph(steps.make("equalized channels", "equalized", inputs, fill))
