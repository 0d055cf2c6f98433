"""Holding a checkpoint's tensors against a model: what to leave out, what is wrong, whose they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from cnnx import models
from cnnx.errors import WeightsError
from cnnx.recipe import Recipe, WeightsSpec, read_recipe, recipe_names

Tensors = Mapping[str, torch.Tensor]
_SHOWN = 8
_COUNTER = "num_batches_tracked"


def adapted(state: Tensors, wanted: Tensors, spec: WeightsSpec) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors under the definition's names, without those it has no use for, and what to tell of it."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in spec.rename.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    training = [n for n in renamed if any(fnmatchcase(n, pattern) for pattern in spec.training_only)]
    kept = {name: tensor for name, tensor in renamed.items() if name not in training}
    notes = [f"tensors that only training needs were left out: {len(training)}"] if training else []
    if extra := spec.background_classes:
        cut = [n for n, t in kept.items() if n in wanted and _rows(t) == _rows(wanted[n]) + extra]
        kept.update({name: kept[name][extra:] for name in cut})
        if cut:
            notes.append(f"background classes of the checkpoint were left out: {extra}")
    return kept, notes


def _rows(tensor: torch.Tensor) -> int:
    return tensor.shape[0] if tensor.dim() else 0


def compare(wanted: Tensors, state: Tensors, file: Path, recipe: Recipe) -> None:
    """Refuse tensors that are not exactly the model's, and say whose they are where that can be told.

    Raises:
        WeightsError: names, shapes or types differ; batch counters alone may be missing.
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
        "of another shape": shapes,
        "of another type": types,
    }
    faults = [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names]
    if not faults:
        return
    what = "the checkpoint does not fit the model"
    mend = "set model.classes and model.arguments in the recipe to what it was trained with"
    if classes := _other_classes(wanted, state, recipe):
        what = f"the checkpoint tells {classes} classes apart, the recipe {recipe.model.classes}"
        mend = (
            f"set model.classes to {classes} in a copy of the recipe, model.labels to a file of their names, "
            "and leave out model.parameters and model.multiply_adds"
        )
    elif network := _recognised(state, wanted):
        what = f"this is a checkpoint of {network}"
        mend = f"export {network}, or give the checkpoint of {recipe.name}"
    elif 2 * len(shared) < len(wanted):
        what = "this is a checkpoint of another network"
        mend = f"give the checkpoint of {recipe.name}"
    raise WeightsError(f"{what}: {'; '.join(faults)}", where=file, mend=mend)


def _other_classes(wanted: Tensors, state: Tensors, recipe: Recipe) -> int | None:
    """How many classes a checkpoint has that differs from the model in nothing else."""
    model, found = _shapes(wanted), _shapes(state)
    if model.keys() != found.keys():
        return None
    lengths = {
        found[name][0] if shape[0] == recipe.model.classes and shape[1:] == found[name][1:] else None
        for name, shape in model.items()
        if shape != found[name]
    }
    return lengths.pop() if len(lengths) == 1 else None


def _recognised(state: Tensors, wanted: Tensors) -> str | None:
    """The shipped recipe whose tensors have these names and shapes, but for the number of classes.

    A recipe with the tensors of the model itself is no answer to what is wrong with them.
    """
    found = _shapes(state)
    for other in map(read_recipe, recipe_names()):
        known = _shapes(_on_meta(other, other.model.classes))
        fits = known.keys() == found.keys() and all(
            shape == found[name] or (shape[0] == other.model.classes and shape[1:] == found[name][1:])
            for name, shape in known.items()
        )
        if fits and known != _shapes(wanted):
            return other.name
    return None


def siblings(wanted: Tensors, recipe: Recipe) -> tuple[str, ...]:
    """A word on networks with the same tensors and other arithmetic: nothing in a file tells them apart."""
    names: dict[str, str] = {}  # one for each network: several recipes may be of the same
    for other in map(read_recipe, recipe_names()):
        if (
            other.model.definition == recipe.model.definition
            and other.model.arguments != recipe.model.arguments
            and _shapes(wanted) == _shapes(_on_meta(other, recipe.model.classes))
        ):
            names.setdefault(repr(other.model.arguments), other.name)
    if not names:
        return ()
    others = ", ".join(names.values())
    return (f"{others} has tensors of the same names and shapes: check that these are {recipe.name}'s",)


def _on_meta(recipe: Recipe, classes: int) -> Tensors:
    spec = recipe.model
    with torch.device("meta"):
        return models.build(spec.definition, classes=classes, arguments=spec.arguments).state_dict()


def _shapes(tensors: Tensors) -> dict[str, torch.Size]:
    """Shapes by name, batch counters aside: checkpoints before PyTorch 0.4.1 have none."""
    return {name: tensor.shape for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def listed(names: Sequence[str]) -> str:
    """The first few of them in words, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def word(dtype: torch.dtype) -> str:
    """A type's name without "torch."."""
    return str(dtype).removeprefix("torch.")
