"""The networks cnnx knows by name. One family a file; a new network is one line here and one recipe.

This module imports no PyTorch: a family's file is imported when one of its networks is built.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cnnx.errors import MissingExtra, RecipeError

if TYPE_CHECKING:
    from torch import nn

DEFINITIONS = {
    "lenet5": "cnnx.models.lenet:lenet5",
    "vgg16": "cnnx.models.vgg:vgg16",
}


def build(name: str, *, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of that name with fresh weights, in evaluation mode.

    Args:
        name: a key of `DEFINITIONS`.
        classes: length of the logits.
        arguments: further keyword arguments of the definition.

    Raises:
        RecipeError: no network has this name, or it does not take these arguments.
        MissingExtra: PyTorch is not installed.
    """
    if name not in DEFINITIONS:
        near = difflib.get_close_matches(name, DEFINITIONS, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DEFINITIONS)}"
        raise RecipeError(f"no network is called {name!r}", where="model.definition", mend=mend)
    module, function = DEFINITIONS[name].split(":")
    try:
        definition = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("torch", "export", purpose="building the PyTorch model") from None
    model: nn.Module = call_definition(definition, name, classes=classes, arguments=arguments)
    return model.eval()


def call_definition(
    definition: Callable[..., Any], name: str, *, classes: int, arguments: Mapping[str, Any]
) -> Any:
    """What `definition(classes=..., **arguments)` gives.

    Raises:
        RecipeError: the function does not take these arguments.
    """
    try:
        inspect.signature(definition).bind(classes=classes, **arguments)
    except TypeError as error:
        given = ", ".join(["classes", *arguments])
        raise RecipeError(
            f"{name} cannot be built: {error}",
            where="model.arguments",
            mend=f"let it take what it is called with, by name: {given}",
        ) from None
    return definition(classes=classes, **arguments)
