"""The networks cnnx knows by name. One family a file; a new network is one line here and one recipe.

This module imports no PyTorch: a family's file is imported when one of its networks is built.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from cnnx.errors import MissingExtra, RecipeError
from cnnx.schema import from_plain

if TYPE_CHECKING:
    from torch import nn

DEFINITIONS = {
    "alexnet": "cnnx.models.alexnet:alexnet",
    "alexnet_owt": "cnnx.models.alexnet:alexnet_owt",
    "bn_alexnet": "cnnx.models.alexnet:bn_alexnet",
    "bn_nin": "cnnx.models.nin:bn_nin",
    "cifar_densenet": "cnnx.models.densenet:cifar_densenet",
    "cifar_preact_resnet": "cnnx.models.preact_resnet:cifar_preact_resnet",
    "cifar_resnet": "cnnx.models.resnet:cifar_resnet",
    "densenet": "cnnx.models.densenet:densenet",
    "googlenet": "cnnx.models.googlenet:googlenet",
    "googlenet_bn": "cnnx.models.googlenet:googlenet_bn",
    "inception_v3": "cnnx.models.inception:inception_v3",
    "inception_v4": "cnnx.models.inception:inception_v4",
    "lenet5": "cnnx.models.lenet:lenet5",
    "lenet5_1998": "cnnx.models.lenet:lenet5_1998",
    "levit": "cnnx.models.levit:levit",
    "nin": "cnnx.models.nin:nin",
    "preact_resnet": "cnnx.models.preact_resnet:preact_resnet",
    "resnet": "cnnx.models.resnet:resnet",
    "resnext": "cnnx.models.resnext:resnext",
    "small_googlenet_bn": "cnnx.models.googlenet:small_googlenet_bn",
    "small_levit": "cnnx.models.levit:small_levit",
    "small_mobilenet": "cnnx.models.mobilenet:small_mobilenet",
    "small_vgg_bn": "cnnx.models.vgg:small_vgg_bn",
    "squeezenet": "cnnx.models.squeezenet:squeezenet",
    "vgg": "cnnx.models.vgg:vgg",
    "wide_resnet": "cnnx.models.wide_resnet:wide_resnet",
    "zfnet": "cnnx.models.zfnet:zfnet",
}

Choice = TypeVar("Choice")


def family(name: str) -> str:
    """The family that a definition belongs to, after the file it lies in; "" for one of the user's own."""
    return DEFINITIONS[name].split(":")[0].rpartition(".")[2].replace("_", "-") if name in DEFINITIONS else ""


FAMILIES = tuple(sorted({family(name) for name in DEFINITIONS}))


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
    check_name(name)
    definition = _load(name)
    checked = _checked(definition, name, arguments)
    try:
        model: nn.Module = definition(classes=classes, **checked)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{name} cannot be built with these arguments: {error}", where="model.arguments", mend="mend them"
        ) from error
    return model.eval()


def check_name(name: str) -> None:
    """Refuse a definition that there is not; PyTorch is not needed.

    Raises:
        RecipeError: no network has this name.
    """
    if name not in DEFINITIONS:
        near = difflib.get_close_matches(name, DEFINITIONS, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DEFINITIONS)}"
        raise RecipeError(f"no network is called {name!r}", where="model.definition", mend=mend)


def _checked(definition: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a shipped definition, held to the types that it declares."""
    hints = typing.get_type_hints(definition)
    known = [argument for argument in inspect.signature(definition).parameters if argument != "classes"]
    for argument in arguments:
        if argument not in known:
            near = difflib.get_close_matches(argument, known, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(known) or 'none'}"
            raise RecipeError(f"{name} takes no {argument!r}", where="model.arguments", mend=mend)
    return {
        argument: from_plain(
            hints[argument], value, where="the recipe", error=RecipeError, at=f"model.arguments.{argument}"
        )
        for argument, value in arguments.items()
    }


def with_defaults(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a shipped definition, those not given as it has them; a list counts as a tuple."""
    parameters = inspect.signature(_load(name)).parameters.values()
    filled = {p.name: p.default for p in parameters if p.name != "classes"} | dict(arguments)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in filled.items()}


def _load(name: str) -> Callable[..., Any]:
    module, function = DEFINITIONS[name].split(":")
    try:
        definition: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("torch", "export", purpose="building the PyTorch model") from None
    return definition


def choose(argument: str, value: Any, choices: Mapping[Any, Choice]) -> Choice:
    """What an argument of a definition stands for.

    Raises:
        RecipeError: it is none of the choices.
    """
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise RecipeError(
            f"{argument} is {value!r}", where=f"model.arguments.{argument}", mend=f"choose one of: {known}"
        )
    return choices[value]


def divided(argument: str, value: int, parts: int, *, mend: str) -> int:
    """How many blocks of `parts` layers make `value` layers.

    Raises:
        RecipeError: none, or not a whole number of them.
    """
    if value < parts or value % parts:
        raise RecipeError(
            f"this {argument} does not give whole blocks ({value} layers in blocks of {parts})",
            where=f"model.arguments.{argument}",
            mend=mend,
        )
    return value // parts
