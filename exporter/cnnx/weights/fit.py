"""Adapts the tensors of a checkpoint to a model, and explains why they do not fit."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import re2
import torch

from cnnx import models
from cnnx.errors import RecipeError, WeightsError
from cnnx.recipe import Recipe, WeightsSpec, read_recipe, recipe_names

Tensors = Mapping[str, torch.Tensor]
_SHOWN = 8
_COUNTER = "num_batches_tracked"


def adapted(state: Tensors, wanted: Tensors, spec: WeightsSpec) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors with the definition's names, without unused ones, and messages for the user."""
    renamed: dict[str, torch.Tensor] = {}
    patterns = [(_compiled(pattern), replacement) for pattern, replacement in spec.rename.items()]
    for name, tensor in state.items():
        for pattern, replacement in patterns:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    training = [n for n in renamed if any(fnmatchcase(n, pattern) for pattern in spec.training_only)]
    kept = {name: tensor for name, tensor in renamed.items() if name not in training}
    kept, replaced = _without_container(kept, wanted)
    notes = [f"training-only tensors of the checkpoint were dropped: {len(training)}"] if training else []
    if extra := spec.background_classes:
        cut = [n for n, t in kept.items() if n in wanted and _rows(t) == _rows(wanted[n]) + extra]
        kept.update({name: kept[name][extra:] for name in cut})
        if cut:
            notes.append(f"background classes of the checkpoint were dropped: {extra}")
    return kept, [*notes, *replaced]


def _compiled(pattern: str) -> Any:
    """A pattern whose matching takes time in proportion to the name's length, whatever it is (RE2).

    Raises:
        RecipeError: RE2 does not have what it uses.
    """
    try:
        return re2.compile(pattern)
    except re2.error as error:
        raise RecipeError(
            f"the pattern {pattern!r} is not supported: {error}",
            where="weights.rename",
            hint="write it without lookaround and backreferences (syntax: RE2)",
        ) from None


def _without_container(state: Tensors, wanted: Tensors) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Rename the layers that fine-tuning put into a container, as in fc = Sequential(Dropout(), Linear()).

    Only if a container holds nothing else with tensors, so fc.1.weight can only be fc.weight.
    """
    missing = {name for name in wanted if name not in state}
    inner = {n: re.sub(r"\.\d+(?=\.[^.]+$)", "", n) for n in state if n not in wanted}
    if not inner or set(inner.values()) != missing or len(inner) != len(missing):
        return dict(state), []
    layers = {n.rpartition(".")[0]: outer.rpartition(".")[0] for n, outer in inner.items()}
    if len(set(layers.values())) != len(layers):  # weight and bias of two layers
        return dict(state), []
    notes = [f"{n} of the checkpoint was loaded as {outer}" for n, outer in layers.items()]
    return {inner.get(name, name): tensor for name, tensor in state.items()}, notes


def _rows(tensor: torch.Tensor) -> int:
    shape = _shape(tensor)
    return shape[0] if shape else 0


def _shape(value: object) -> torch.Size:
    """Return the shape of an entry of a checkpoint, which may be no tensor."""
    return value.shape if isinstance(value, torch.Tensor) else torch.Size()


def mismatch(wanted: Tensors, state: Tensors) -> int:
    """Return the number of tensors that differ from a model in more than the number of classes."""
    model, found = _shapes(wanted), _shapes(state)
    changed = [name for name, shape in model.items() if name in found and shape != found[name]]
    lengths = {(model[name][:1], found[name][:1]) for name in changed}
    heads = len(lengths) == 1 and all(
        model[name] and found[name] and model[name][1:] == found[name][1:] for name in changed
    )
    return len(model.keys() ^ found.keys()) + (0 if heads else len(changed))


def classes_of(wanted: Tensors, state: Tensors, classes: int) -> int | None:
    """Return the number of classes of a checkpoint that differs from the model only in that, else None.

    Args:
        wanted: tensors of the model.
        state: tensors of the checkpoint, as `adapted` returns them.
        classes: number of classes of the model.
    """
    model, found = _shapes(wanted), _shapes(state)
    changed = [name for name, shape in model.items() if name in found and shape != found[name]]
    if not changed or mismatch(wanted, state) or model[changed[0]][0] != classes:
        return None
    return found[changed[0]][0]


def compare(wanted: Tensors, state: Tensors, file: Path, recipe: Recipe) -> None:
    """Refuse tensors that do not match the model exactly, and name the network they belong to if possible.

    Raises:
        WeightsError: names, shapes or types differ. Only batch counters may be missing.
    """
    missing = [n for n in wanted if n not in state and not n.endswith(_COUNTER)]
    unexpected = [n for n in state if n not in wanted]
    shared = [n for n in wanted if n in state]
    shapes = [
        f"{n}: {list(state[n].shape)} where the model has {list(wanted[n].shape)}"
        for n in shared
        if state[n].shape != wanted[n].shape
    ]
    types = [
        f"{n}: {word(state[n].dtype)}"
        for n in shared
        if state[n].is_floating_point() != wanted[n].is_floating_point()
    ]
    kinds = {
        "missing": missing,
        "unexpected": unexpected,
        "with a different shape": shapes,
        "with a different type": types,
    }
    faults = [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names]
    if not faults:
        return
    what = "the checkpoint does not fit the model"
    hint = "set model.classes and model.arguments in the recipe to the values used for training"
    if classes := classes_of(wanted, state, recipe.model.classes):
        what = f"the checkpoint has {classes} classes, the recipe {recipe.model.classes}"
        hint = (
            f"in a copy of the recipe, set model.classes to {classes} and model.labels to a file of their "
            "names, and remove model.parameters and model.multiply_adds"
        )
    elif network := _recognised(state, wanted):
        what = f"the checkpoint belongs to {network}"
        hint = f"export {network}, or give a checkpoint of {recipe.name}"
    elif 2 * len(shared) < len(wanted):
        what = "the checkpoint belongs to a different network"
        hint = f"give a checkpoint of {recipe.name}"
    raise WeightsError(f"{what}: {'; '.join(faults)}", where=file, hint=hint)


def _recognised(state: Tensors, wanted: Tensors) -> str | None:
    """Return the shipped recipe with tensors of these names and shapes, up to the number of classes.

    Recipes with the same tensors as the model are skipped, as they do not explain the mismatch.
    """
    found = _shapes(state)
    for other in map(read_recipe, recipe_names()):
        known = _shapes(on_meta(other, other.model.classes))
        fits = known.keys() == found.keys() and all(
            shape == found[name] or (shape[0] == other.model.classes and shape[1:] == found[name][1:])
            for name, shape in known.items()
        )
        if fits and known != _shapes(wanted):
            return other.name
    return None


def siblings(wanted: Tensors, recipe: Recipe) -> tuple[str, ...]:
    """Return a warning about networks with the same tensors but different arithmetic, if there are any."""
    names: dict[str, str] = {}  # one per network; several recipes can describe the same network
    for other in map(read_recipe, recipe_names()):
        if (
            other.model.definition == recipe.model.definition
            and other.model.arguments != recipe.model.arguments
            and _shapes(wanted) == _shapes(on_meta(other, recipe.model.classes))
        ):
            names.setdefault(repr(other.model.arguments), other.name)
    if not names:
        return ()
    others = ", ".join(names.values())
    return (f"the tensors also fit {others}: check that they were trained for {recipe.name}",)


def on_meta(recipe: Recipe, classes: int) -> Tensors:
    """Return the tensors of a recipe's network, without memory for their values."""
    return _on_meta(recipe.model.definition, classes, json.dumps(dict(recipe.model.arguments)))


@functools.cache
def _on_meta(definition: str, classes: int, arguments: str) -> Tensors:
    """As `on_meta`; building all networks takes seconds, and refused checkpoints are compared with all."""
    with torch.device("meta"):
        return models.build(definition, classes=classes, arguments=json.loads(arguments)).state_dict()


def _shapes(tensors: Tensors) -> dict[str, torch.Size]:
    """Return shapes by name, without batch counters, which checkpoints before PyTorch 0.4.1 do not have."""
    return {name: _shape(tensor) for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def listed(names: Sequence[str]) -> str:
    """Return the first few names as text, and the number of further ones."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def word(dtype: torch.dtype) -> str:
    """Return the name of a type without "torch."."""
    return str(dtype).removeprefix("torch.")
