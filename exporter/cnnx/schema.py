"""Dataclasses from plain tables, as TOML gives them: nothing unknown, nothing of another type."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import RecipeError


def filled(cls: type, data: Mapping[str, Any], *, at: str, where: Path) -> Any:
    """A dataclass from a table, refusing what it does not know.

    Raises:
        RecipeError: an unknown key, with the nearest known one; a missing key; a value of another type.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"[{at}] should be a table, not {_kind(data)}", where=where)
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.metadata.get("key", True)}
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise RecipeError(f"unknown key {key!r}", where=f"{where}, table [{at or 'top'}]", mend=mend)
    values = {}
    for name, spec in known.items():
        path = f"{at}.{name}" if at else name
        if name in data:
            values[name] = converted(hints[name], data[name], at=path, where=where)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise RecipeError(f"the key {path!r} is missing", where=where)
    return cls(**values)


def converted(hint: Any, value: Any, *, at: str, where: Path) -> Any:
    """One TOML value as the type that its field declares; a list where a tuple is wanted becomes one.

    Raises:
        RecipeError: it is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return filled(typing.cast(type, hint), value, at=at, where=where)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(repr, arguments))
            raise RecipeError(f"{at} is {value!r}", where=where, mend=f"choose one of: {choices}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        variadic = len(arguments) == 2 and arguments[1] is Ellipsis
        if not variadic and len(value) != len(arguments):
            raise RecipeError(f"{at} needs {len(arguments)} values, has {len(value)}", where=where)
        inner = [arguments[0]] * len(value) if variadic else arguments
        return tuple(
            converted(h, v, at=f"{at}[{i}]", where=where)
            for i, (h, v) in enumerate(zip(inner, value, strict=True))
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return float(value)
    wanted = hint if origin is None else origin
    if not isinstance(value, wanted) or (hint is int and isinstance(value, bool)):
        raise RecipeError(f"{at} should be {_word(hint)}, not {_kind(value)}", where=where)
    return value


def _word(hint: Any) -> str:
    return {str: "text", int: "a whole number", float: "a number"}.get(
        hint, "a list or table of the right shape"
    )


def _kind(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"
