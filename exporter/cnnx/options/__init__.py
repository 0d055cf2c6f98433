"""Declares options once: name, type, default and help serve the command line, Python and the docs.

A command's options are a frozen dataclass whose fields are made by `option`. `cnnx.cli.options` turns the
fields into command-line parameters, and `takes` into keywords of a Python function. An option that overrides
a recipe names the recipe key. Imports stay light, so that `cnnx --help` starts fast.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

Precision = Literal["fp32", "fp16", "int8"]
Scales = Literal["fp16", "fp32"]
"""Floating-point type of the scales, and of everything that does not run in INT8."""
Batch = tuple[int, int]
"""Smallest and largest batch."""
REQUIRED: Any = dataclasses.MISSING
"""As a default: the option is required."""

R = TypeVar("R")
K = TypeVar("K")


def option(
    default: Any,
    help: str,  # noqa: A002 - what Typer and argparse call it
    *,
    recipe: str = "",
    flag: str = "",
    flags: Mapping[str, str] | None = None,
    read: Callable[[Any], Any] | None = None,
    text: str = "",
    **shown: Any,
) -> Any:
    """Return a dataclass field that declares one option.

    Args:
        default: value if the option is not given. An empty tuple makes the option repeatable.
        help: one imperative sentence or noun phrase.
        recipe: recipe key that a value other than None overrides, such as "calibration.data".
        flag: command-line flag, if it differs from the field's name.
        flags: choice -> help, if each choice is a flag of its own on the command line.
        read: converts the command-line value; raises ValueError with the expected form.
        text: default as written on the command line, for options with `read`.
        shown: Typer's `metavar`, `min` and `max`.
    """
    metadata = {"help": help, "recipe": recipe, "flag": flag, "flags": flags}
    return dataclasses.field(
        default=default, metadata={**metadata, "read": read, "text": text, "shown": shown}
    )


def overrides(options: Any) -> dict[str, Any]:
    """Recipe keys that the options override, with their values: "calibration.data" -> "photos/"."""
    given = {f.metadata["recipe"]: getattr(options, f.name) for f in dataclasses.fields(options)}
    return {key: value for key, value in given.items() if key and value is not None}


def part_of(options: Any, kind: type[K]) -> K:
    """The options as an instance of `kind`, a base class of theirs."""
    return kind(**{f.name: getattr(options, f.name) for f in dataclasses.fields(kind)})  # type: ignore[arg-type]


def takes(kind: type[Any], name: str = "options") -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorate a function so that it also takes each option as a keyword.

    `f(model, options, *, listener)` becomes `f(model, options=None, *, listener, **changes)`: keywords
    override the object, which may also be an instance of a base class of `kind`. The signature and the
    docstring list the options.

    Args:
        kind: a dataclass whose fields are made by `option`.
        name: name of the parameter that receives the options.
    """

    def decorated(function: Callable[..., R]) -> Callable[..., R]:
        signature = inspect.signature(function)
        own = signature.parameters
        known = {f.name: f for f in dataclasses.fields(kind)}

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> R:
            changes = {key: keywords.pop(key) for key in list(keywords) if key in known}
            if odd := [key for key in keywords if key not in own]:
                near = difflib.get_close_matches(odd[0], [*known, *own], n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{function.__name__}() has no option {odd[0]!r}{hint}")
            bound = signature.bind_partial(*arguments, **keywords)
            bound.arguments[name] = _merged(kind, bound.arguments.get(name), changes)
            return function(*bound.args, **bound.kwargs)

        listed = [own[key].replace(default=None) if key == name else own[key] for key in own]
        at = list(own).index(name) + 1
        listed[at:at] = [
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if f.default is REQUIRED else f.default,
                annotation=f.type,
            )
            for f in known.values()
        ]
        call.__signature__ = signature.replace(parameters=listed)  # type: ignore[attr-defined]
        lines = [f"    {f.name}: {f.metadata['help']}" for f in known.values()]
        call.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options:", *lines])
        return call

    return decorated


def _merged(kind: type[Any], options: Any, changes: Mapping[str, Any]) -> Any:
    """Return `options` as a `kind`, with `changes` applied.

    Raises:
        TypeError: `options` is neither a `kind` nor an instance of one of its base classes.
    """
    if options is None:
        return kind(**changes)
    if not issubclass(kind, type(options)) or not dataclasses.is_dataclass(options):
        raise TypeError(f"options must be {kind.__name__}, not {type(options).__name__}")
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    return kind(**{**given, **changes})
