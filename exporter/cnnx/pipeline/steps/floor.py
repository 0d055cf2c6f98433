"""The step that runs the original's FP32 graph on ONNX Runtime, for the noise floor of agreement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import Fp32Graph, ReferenceLogits, write_logits
from cnnx.pipeline.steps.inference import RUNNER, graph_logits, ran_by
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from cnnx.data.crops import Crops


def floor_step(steps: Steps, graph: Fp32Graph, crops: Crops, recipe: Recipe) -> ReferenceLogits:
    """Logits of the FP32 graph on ONNX Runtime for the validation images.

    Raises:
        EnvironmentLacks: ONNX Runtime is not installed.
    """
    inputs = {
        "graph": graph.key,
        "crops": crops.key,
        "preprocessing": recipe.preprocessing.as_key(),
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }

    def fill(folder: Path, progress: Progress) -> None:
        logits = graph_logits(graph.model, crops.pixels, recipe.preprocessing, progress=progress)
        write_logits(folder, logits)

    return ReferenceLogits(steps.make("noise floor", "floor", inputs, fill))
