"""Resolves the model argument of a command to a recipe, and to a PyTorch module without weights."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.errors import RecipeError, UsageError
from cnnx.preprocessing.presets import assumed
from cnnx.recipe import InputSpec, ModelSpec, Recipe, read_recipe

if TYPE_CHECKING:
    from torch import nn


def resolve(model: str, *, trust_recipe: bool, logits: str = "") -> Recipe:
    """The recipe for a model argument: a recipe's name, a recipe file, or an ONNX file.

    Args:
        model: the argument.
        trust_recipe: whether the recipe's own Python code may run.
        logits: name of the output to judge an ONNX file by; "": the recipe's choice, or chosen.

    Raises:
        RecipeError: the recipe does not exist, or it runs code and is not trusted.
        GraphError: the ONNX file is not an image classifier.
        UsageError: `logits` for a PyTorch definition, or an address in place of a file.
    """
    if "://" in model:
        hint = "download the ONNX file or the checkpoint first, and give its path"
        raise UsageError("a network is not read from the internet", where=model, hint=hint)
    if Path(model).suffix.lower() == ".onnx":
        recipe = _recipe_for_onnx(Path(model), logits)
    else:
        recipe = read_recipe(model)
        if logits and not recipe.is_onnx:
            what = f"--logits {logits} applies to ONNX files; {recipe.name} is a PyTorch definition"
            raise UsageError(what, hint="drop --logits")
        if logits:
            recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, logits=logits))
    refuse_untrusted(recipe, trust_recipe=trust_recipe)
    return recipe


def refuse_untrusted(recipe: Recipe, *, trust_recipe: bool) -> None:
    """Raise if a recipe runs code and is not trusted.

    Raises:
        RecipeError: it runs code and is not trusted.
    """
    if recipe.runs_user_code and not trust_recipe:
        raise RecipeError(
            f"this recipe runs Python code: {recipe.model.definition}",
            where=recipe.folder / recipe.model.definition.split(":")[0],
            hint="read that file; if you trust it, add --trust-recipe",
        )


def _recipe_for_onnx(path: Path, logits: str) -> Recipe:
    """A recipe for an ONNX file: the graph's own sizes, and the usual preprocessing for its channels."""
    from cnnx.graph.edit import data_inputs
    from cnnx.graph.entry import read_network

    network = read_network(path, logits=logits)
    _, channels, height, width = network.input_shape
    if channels not in (1, 3):
        raise RecipeError(
            f"the graph's input has {channels} channels: expected 1 (gray) or 3 (RGB)",
            where=path,
            hint="export the ONNX file again with a gray or RGB input",
        )
    return Recipe(
        name=re.sub(r"[^a-z0-9_.-]", "-", path.stem.lower()).lstrip("-_.") or "model",
        model=ModelSpec(definition=path.name, classes=network.classes, logits=logits),
        title=path.name,
        summary="A graph of the user's own, with the preprocessing usual for its channels.",
        input=InputSpec(shape=(channels, height, width), name=data_inputs(network.model.graph)[0].name),
        preprocessing=assumed((channels, height, width), pixels=network.pixels),
        folder=path.parent,
    )


def build_torch(recipe: Recipe, *, trusted: bool) -> nn.Module:
    """The recipe's definition as a module, without its weights.

    Raises:
        MissingExtra: PyTorch is not installed.
        RecipeError: the definition is unknown or untrusted.
    """
    from cnnx import models

    if recipe.runs_user_code:
        from cnnx.models.user import load_user_model

        return load_user_model(recipe, trusted=trusted)
    return models.build(
        recipe.model.definition, classes=recipe.model.classes, arguments=recipe.model.arguments
    )


def check_model(model: nn.Module, recipe: Recipe) -> None:
    """Check a model against its recipe, before weights are loaded.

    Raises:
        RecipeError: the model does not take the recipe's input, or its number of classes, parameters or
            MACs differs from the recipe.
    """
    spec = recipe.model
    if recipe.runs_user_code and not (spec.parameters or spec.multiply_adds):
        return  # user code may hold plain tensors, which do not move to the meta device
    from cnnx.models.count import trace

    rows, logits = trace(model, recipe.input.shape)
    if logits != (spec.classes,):
        raise RecipeError(
            f"the network's output for an image has shape {list(logits)}, the recipe has "
            f"{spec.classes} classes",
            where="model.classes",
            hint="make the definition use its argument `classes`, or correct model.classes",
        )
    for key, unit in (("parameters", "parameters"), ("multiply_adds", "MACs")):
        stated, found = getattr(spec, key), sum(getattr(row, key) for row in rows)
        if stated not in (0, found):
            raise RecipeError(
                f"the network has {found:,} {unit}, but the recipe states {stated:,}",
                where=f"model.{key}",
                hint="correct or remove that key, or correct model.arguments or input.shape",
            )
