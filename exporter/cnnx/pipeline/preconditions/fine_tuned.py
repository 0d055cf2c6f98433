"""Fits a recipe to the user's checkpoint, which may have been fine-tuned for other classes."""

from __future__ import annotations

import dataclasses

from cnnx.errors import WeightsError
from cnnx.pipeline.preconditions.refusals import refuse_without_torch
from cnnx.pipeline.steps.definition import build_torch
from cnnx.preprocessing.words import described
from cnnx.recipe import Recipe
from cnnx.weights import classes_in, find


def fitted(
    recipe: Recipe, weights: str, *, trust_recipe: bool, names_given: bool = False
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the number of classes of the checkpoint, and notes for the user.

    The class names, counts and published accuracy of the recipe belong to its own classes, so they are
    dropped if the number differs. Its preprocessing is kept, and stated in a note: a checkpoint does not
    contain what it was trained with.

    Args:
        recipe: the recipe, with the user's options applied.
        weights: "pretrained", "standin", or the path of a checkpoint.
        trust_recipe: whether the recipe's own Python code may run.
        names_given: whether the class names are the user's, to be kept.

    Raises:
        WeightsError: the checkpoint does not exist, is damaged or unsafe, or has a single class.
        RecipeError: the definition is unknown or untrusted.
        MissingExtra: PyTorch is not installed.
    """
    if weights in ("pretrained", "standin") or recipe.is_onnx:
        return recipe, ()
    file = find(recipe, weights)
    assert file is not None
    refuse_without_torch()
    model = build_torch(recipe, trusted=trust_recipe) if recipe.runs_user_code else None
    classes = classes_in(file, recipe, model)
    words = described(recipe.preprocessing, recipe.input.shape)
    assumed = f"Preprocessing is that of the recipe {recipe.name}: {words}."
    if classes == recipe.model.classes:
        return recipe, (assumed,)
    if classes < 2:
        raise WeightsError(
            f"the checkpoint has {classes} logit, and a classifier has at least 2",
            where=file,
            hint="train it with 2 logits and cross-entropy, one for each class",
        )
    named = "" if names_given else ", no class names (give them with --class-names)"
    note = (
        f"The checkpoint has {classes} classes, the recipe {recipe.model.classes}: {classes} logits{named}."
    )
    labels = recipe.model.labels if names_given else ""
    spec = dataclasses.replace(recipe.model, classes=classes, labels=labels, parameters=0, multiply_adds=0)
    unpublished = dataclasses.replace(
        recipe.weights, file="", url="", source="", licence="", top1=0.0, top5=0.0, protocol=""
    )
    changed = dataclasses.replace(recipe, model=spec, weights=unpublished, published=())
    return changed, (note, f"{assumed} If it was trained with another, change it in a copy of the recipe.")
