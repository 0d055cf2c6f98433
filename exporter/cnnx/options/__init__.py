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
import numbers
import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from typing import dataclass_transform
else:  # Python 3.10 does not have it

    def dataclass_transform(**_):
        """Leave the class as it is."""
        return lambda cls: cls


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


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Options:
    """Base class of a verb's options: a frozen dataclass whose fields are made by `option`.

    Its methods are written once, here: `dataclass` would compile six for each of 28 classes, a tenth of the
    time of `cnnx --help`.
    """

    def __init_subclass__(cls) -> None:
        """Make a dataclass of each class of options."""
        dataclasses.dataclass(init=False, repr=False, eq=False, match_args=False)(cls)

    def __init__(self, **given: Any) -> None:
        known = {f.name: f.default for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        if wrong := [key for key in given if key not in known]:
            raise TypeError(f"{type(self).__name__} has no option {wrong[0]!r}")
        self.__dict__.update({**known, **given})
        if missing := [key for key, value in self.__dict__.items() if value is REQUIRED]:
            raise TypeError(f"{type(self).__name__} needs the option {missing[0]!r}")
        self.__post_init__()

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in self.__dict__.items())
        return f"{type(self).__name__}({values})"


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
            for key, value in bound.arguments.items():
                if own[key].annotation == "str | Path":
                    _check_type(key, value, str | os.PathLike)
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
        call.__doc__ = _with_arguments(inspect.cleandoc(function.__doc__ or ""), lines)
        del call.__wrapped__  # documentation tools would show its signature
        return call

    return decorated


def _with_arguments(doc: str, lines: Sequence[str]) -> str:
    """A docstring with more lines at the end of its section Args."""
    if "\nArgs:\n" not in doc:
        return "\n".join([doc, "", "Args:", *lines])
    head, section, rest = doc.partition("\nArgs:\n")
    listed, end, tail = rest.partition("\n\n")
    return "\n".join([head + section + listed, *lines]) + end + tail


def _merged(kind: type[Any], options: Any, changes: Mapping[str, Any]) -> Any:
    """Return `options` as a `kind`, with `changes` applied.

    Raises:
        TypeError: `options` is neither a `kind` nor an instance of one of its base classes, or a value has
            the wrong type.
    """
    hints = get_type_hints(kind)
    for key, value in changes.items():
        _check_type(key, value, hints[key])
    if options is None:
        return kind(**changes)
    if not issubclass(kind, type(options)) or not dataclasses.is_dataclass(options):
        raise TypeError(f"options must be {kind.__name__}, not {type(options).__name__}")
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    return kind(**{**given, **changes})


def _check_type(name: str, value: object, hint: Any) -> None:
    """Refuse a value of the wrong type.

    Raises:
        TypeError: it has.
    """
    if not _fits(value, hint):
        expected = hint.__name__ if isinstance(hint, type) else re.sub(r"\b[a-z_.]+\.", "", str(hint))
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__}: {value!r}")


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type, as far as options have types."""
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, member) for member in members)
    if origin is Literal:
        return isinstance(value, tuple({type(member) for member in members}))
    if origin is not None:
        return isinstance(value, Sequence) and not isinstance(value, str)
    if isinstance(value, bool):
        return bool(hint is bool)
    if hint is float or hint is int:
        return isinstance(value, numbers.Integral if hint is int else numbers.Real)
    return isinstance(value, hint) if isinstance(hint, type) and hint is not Any else True
