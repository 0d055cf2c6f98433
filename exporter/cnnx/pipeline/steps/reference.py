"""The step that runs the original for its reference logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import Fp32Graph, ReferenceLogits, write_logits
from cnnx.pipeline.steps.inference import PARITY_IMAGES, RUNNER, check_parity, ran_by
from cnnx.pipeline.steps.original import OnnxOriginal, Original, original_logits
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

if TYPE_CHECKING:
    from cnnx.data.crops import Crops


def reference_step(
    steps: Steps, original: Original, graph: Fp32Graph, crops: Crops, recipe: Recipe
) -> ReferenceLogits:
    """The original's logits for the validation images. The exported graph is checked against them.

    Raises:
        BuildFailed: the FP32 graph and the original give different logits.
        InputRefused: the original's logits are not finite.
    """
    inputs = {
        "original": graph.key,
        "crops": crops.key,
        "preprocessing": recipe.preprocessing.as_key(),
        "code": own_code(__name__, RUNNER, *original.modules),
        **ran_by(),
    }

    def fill(folder: Path, progress: Progress) -> None:
        logits = original_logits(original, crops.pixels, recipe, progress=progress)
        check_parity(graph.model, crops.pixels[:PARITY_IMAGES], logits, recipe)
        write_logits(folder, logits)

    return ReferenceLogits(steps.make("original's logits", "reference", inputs, fill))


def judge_step(steps: Steps, reference: OnnxOriginal, crops: Crops, recipe: Recipe) -> ReferenceLogits:
    """The logits for the validation images of a network that replaces the original in the verdict.

    Raises:
        InputRefused: its logits are not finite.
    """
    inputs = {
        "reference": reference.key(),
        "crops": crops.key,
        "preprocessing": recipe.preprocessing.as_key(),
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }

    def fill(folder: Path, progress: Progress) -> None:
        write_logits(folder, original_logits(reference, crops.pixels, recipe, progress=progress))

    return ReferenceLogits(steps.make("reference's logits", "reference", inputs, fill))
