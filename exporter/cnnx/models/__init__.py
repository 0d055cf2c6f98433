"""Registry of the built-in networks, one module per family. A new network needs a line here and a recipe.

This module does not import PyTorch: the module of a family is imported when one of its networks is built.
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
    "efficientnet_lite": "cnnx.models.efficientnet_lite:efficientnet_lite",
    "googlenet": "cnnx.models.googlenet:googlenet",
    "googlenet_bn": "cnnx.models.googlenet:googlenet_bn",
    "inception_v3": "cnnx.models.inception:inception_v3",
    "inception_v4": "cnnx.models.inception:inception_v4",
    "lenet5": "cnnx.models.lenet:lenet5",
    "lenet5_1998": "cnnx.models.lenet:lenet5_1998",
    "levit": "cnnx.models.levit:levit",
    "mobilenet_v1": "cnnx.models.mobilenet:mobilenet_v1",
    "mobilenet_v2": "cnnx.models.mobilenet:mobilenet_v2",
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
    """Return the family of a definition, named after its module; "" for a definition of the user."""
    return DEFINITIONS[name].split(":")[0].rpartition(".")[2].replace("_", "-") if name in DEFINITIONS else ""


FAMILIES = tuple(sorted({family(name) for name in DEFINITIONS}))


def build(name: str, *, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network with untrained weights, in evaluation mode.

    Args:
        name: key of `DEFINITIONS`.
        classes: length of the logits.
        arguments: further keyword arguments of the definition.

    Raises:
        RecipeError: the name is unknown, or the definition does not take these arguments.
        MissingExtra: PyTorch is not installed.
    """
    check_name(name)
    definition = _load(name)
    checked = _checked(definition, name, arguments)
    try:
        model: nn.Module = definition(classes=classes, **checked)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{name} cannot be built with these arguments: {error}",
            where="model.arguments",
            hint="correct model.arguments in the recipe, or remove them to use the defaults",
        ) from error
    return model.eval()


def check_name(name: str) -> None:
    """Refuse an unknown definition, without importing PyTorch.

    Raises:
        RecipeError: the name is unknown.
    """
    if name not in DEFINITIONS:
        near = difflib.get_close_matches(name, DEFINITIONS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(DEFINITIONS)}"
        raise RecipeError(f"unknown network {name!r}", where="model.definition", hint=hint)


def _checked(definition: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a built-in definition, converted to the types it declares."""
    hints = typing.get_type_hints(definition)
    known = [argument for argument in inspect.signature(definition).parameters if argument != "classes"]
    for argument in arguments:
        if argument not in known:
            near = difflib.get_close_matches(argument, known, n=1, cutoff=0.5)
            takes = (
                f"{name} takes: {', '.join(known)}" if known else f"remove model.arguments: {name} takes none"
            )
            hint = f"did you mean {near[0]!r}?" if near else takes
            raise RecipeError(f"{name} has no argument {argument!r}", where="model.arguments", hint=hint)
    return {
        argument: from_plain(
            hints[argument], value, where="the recipe", error=RecipeError, at=f"model.arguments.{argument}"
        )
        for argument, value in arguments.items()
    }


def with_defaults(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a built-in definition, with defaults filled in and lists as tuples."""
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
    """Look up the value of an argument.

    Raises:
        RecipeError: the value is not one of the choices.
    """
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise RecipeError(
            f"invalid {argument} {value!r}",
            where=f"model.arguments.{argument}",
            hint=f"choose one of: {known}",
        )
    return choices[value]


def divided(argument: str, value: int, parts: int, *, hint: str) -> int:
    """Return the number of blocks of `parts` layers in `value` layers.

    Raises:
        RecipeError: `value` is not a positive multiple of `parts`.
    """
    if value < parts or value % parts:
        raise RecipeError(
            f"invalid {argument}: {value} layers cannot be divided into blocks of {parts}",
            where=f"model.arguments.{argument}",
            hint=hint,
        )
    return value // parts
