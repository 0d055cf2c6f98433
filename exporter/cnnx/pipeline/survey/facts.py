"""What a survey's row says about its network: size, accuracy, and why nothing was decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnx.agreement import Validation
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.graph.inspect import layers
from cnnx.graph.load import load_model
from cnnx.pipeline.records.verified import latest_validation, records_of
from cnnx.pipeline.survey.journal import MeasuredAccuracy, NetworkFacts
from cnnx.stats import Verdict, wilson

_SETS = {"imagenet": "ImageNet", "cifar10": "CIFAR-10"}
"""Class names that ship with cnnx -> the image set that published accuracies are about."""


def facts_of(folder: Path) -> dict[str, Any]:
    """The facts of a bundle, as keys of its rows."""
    bundle = Bundle.open(folder, verify=False)
    recipe = recipe_of(bundle.manifest)
    judged = latest_validation(records_of(bundle).verified)
    graph = layers(load_model(bundle.model))
    figures = recipe.published[0] if recipe.published else None
    published = recipe.weights.top1 or (figures.top1 if figures else 0)
    # BatchNorms are folded into the graph: the recipe counts as papers do.
    found: NetworkFacts = {
        "parameters": recipe.model.parameters or sum(layer.parameters for layer in graph),
        "multiply_adds": recipe.model.multiply_adds or sum(layer.multiply_adds for layer in graph),
        "accuracy": _accuracy(judged[1]) if judged else None,
        "published_top1": published or None,
        "published_on": _SETS.get(Path(recipe.model.labels).stem, "other images"),
        "assumed_preprocessing": recipe.preprocessing.assumed,
        "undecided": _undecided(judged[1]) if judged else "it was not validated",
    }
    return dict(found)


def _accuracy(validation: Validation) -> MeasuredAccuracy | None:
    if validation.accuracy is None:
        return None
    top1 = validation.accuracy.engine
    interval = wilson(top1, validation.images)
    return {
        "top1": top1,
        "low": interval.low,
        "high": interval.high,
        "images": validation.images,
        "image_set": validation.image_set,
    }


def _undecided(validation: Validation) -> str:
    """Why the verdict is inconclusive or missing; empty if it is passed or failed."""
    if validation.verdict in (Verdict.PASSED, Verdict.FAILED):
        return ""
    needs = (
        f"{gate.name} needs {gate.decides_at:,} images" if gate.decides_at else f"{gate.name} is at its limit"
        for gate in validation.gates
        if gate.verdict is Verdict.INCONCLUSIVE
    )
    return "; ".join((*validation.reasons, *needs))
