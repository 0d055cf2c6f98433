"""Strict conversion of plain JSON and TOML data to typed objects.

msgspec converts and checks. This module adds what msgspec does not offer for dataclasses: unknown keys are
refused with the nearest known key, numbers must be finite and fit in 64 bits, and every message gives the
full path of the key, such as `engines[0].batch[1]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from cnnx.errors import CnnxError
from cnnx.limits import JSON_LEVELS

T = TypeVar("T")

_END = r"(?![\s\S])"  # "$" would let a line break pass
Count = Annotated[int, Meta(ge=0, description="an integer of 0 or more")]
Positive = Annotated[int, Meta(ge=1, description="an integer of 1 or more")]
Quantity = Annotated[float, Meta(ge=0, description="a number of 0 or more")]
Rate = Annotated[float, Meta(ge=0, le=1, description="a rate in 0..1, such as 0.95")]
Percent = Annotated[float, Meta(ge=0, le=100, description="a percentage in 0..100, such as 76.13")]
_HEX, _FILE = "[0-9a-f]{64}", r"(?!\.{1,2}" + _END + r")[^/\\\x00-\x1f]{1,255}"
_HEX_TEXT, _FILE_TEXT = (
    "a SHA-256 in lower-case hexadecimal",
    "the name of a file in this folder, without a path",
)
Digest = Annotated[str, Meta(pattern=f"^{_HEX}{_END}", description=_HEX_TEXT)]
DigestOrEmpty = Annotated[str, Meta(pattern=f"^({_HEX})?{_END}", description=f"{_HEX_TEXT}, or empty")]
FileName = Annotated[str, Meta(pattern=f"^{_FILE}{_END}", description=_FILE_TEXT)]
FileNameOrEmpty = Annotated[str, Meta(pattern=f"^({_FILE})?{_END}", description=f"{_FILE_TEXT}, or empty")]
Name = Annotated[
    str,
    Meta(
        pattern=rf"^[a-z0-9][a-z0-9_.-]*{_END}",
        description="a valid folder name made of lower-case letters, digits, '-', '_' and '.'",
    ),
]
Date = Annotated[
    str,
    Meta(
        pattern=rf"^\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{{6}})?\+00:00{_END}",
        description="a date in UTC, such as 2026-01-02T03:04:05.000000+00:00",
    ),
]

_LARGEST = 2**63
_DEEPEST = 40
_SURROGATE = re.compile("[\ud800-\udfff]")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_AT = re.compile(r" - at (`key` in )?`\$(.*)`$", re.DOTALL)
_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false", type(None): "null"}


class _Invalid(Exception):
    """A fault and its hint, without the file name; a specific hint takes precedence over the caller's."""

    def __init__(self, what: str, hint: str, *, specific: bool = False) -> None:
        super().__init__(what)
        self.what, self.hint, self.specific = what, hint, specific


def from_plain(
    cls: type[T],
    data: object,
    *,
    where: object,
    error: type[CnnxError],
    at: str = "",
    hint: str | None = None,
) -> T:
    """Convert plain data to a typed object.

    Args:
        cls: a dataclass, a TypedDict, or a collection of them.
        data: mappings, lists, strings and numbers.
        where: file name for messages.
        error: exception class to raise.
        at: path of the key that holds `data` in the file.
        hint: default hint; without it, the hint describes the expected value.

    Raises:
        error: a key is unknown or missing, or a value has the wrong type or range.
    """
    try:
        _check(cls, data, at, 0)
        return msgspec.convert(data, cls)
    except _Invalid as fault:
        hint = fault.hint if fault.specific or not hint else hint
        raise error(fault.what, where=where, hint=hint) from None
    except msgspec.ValidationError as fault:
        what, expected = _explained(cls, data, fault, at)
        raise error(what, where=where, hint=hint or expected) from None


def plain_of(value: object) -> Any:
    """Convert an object made by `from_plain` back to mappings, lists, strings and numbers."""
    return msgspec.to_builtins(value)


def with_hints(data: Any) -> Any:
    """Rename the key `mend`, which files written before cnnx 0.2 have, to `hint`, at any depth.

    Lint warnings in manifests, findings in records and rows of surveys have that key.
    """
    if isinstance(data, dict):
        return {"hint" if key == "mend" else key: with_hints(value) for key, value in data.items()}
    return [with_hints(value) for value in data] if isinstance(data, list) else data


def read_json(text: str | bytes, *, where: object, error: type[CnnxError], hint: str | None = None) -> Any:
    """Parse JSON for `from_plain`, which refuses NaN and infinities and names their keys.

    Raises:
        error: invalid JSON, a duplicate key in an object, or too many nested levels.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise error("invalid JSON: nested too deeply", where=where, hint=hint) from None
    except ValueError as fault:
        raise error(f"invalid JSON: {fault}", where=where, hint=hint) from None
    if _is_deep(data):
        raise error(f"invalid JSON: more than {JSON_LEVELS} nested levels", where=where, hint=hint)
    return data


def _is_deep(data: Any) -> bool:
    """Whether data have more levels than `JSON_LEVELS`; code that follows them may call itself."""
    level = [data]
    for _ in range(JSON_LEVELS + 1):
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            return False
        level = [value for each in level for value in (each.values() if isinstance(each, dict) else each)]
    return True


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A hint that names the closest known word, or all known words."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


@functools.cache
def fields_of(cls: Any) -> Mapping[str, Any] | None:
    """Mapping of key to type for a dataclass or TypedDict; None for other types."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.metadata.get("key", True)}
    return typing.get_type_hints(cls, include_extras=True) if typing.is_typeddict(cls) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return found


def _check(hint: Any, value: object, at: str, depth: int) -> None:
    """Refuse what msgspec accepts: unknown keys, and strings and numbers that are not valid JSON."""
    if fault := _fault(value):
        raise _Invalid(f"{_path(at)} {fault}", "use finite 64-bit numbers and valid Unicode text")
    if depth > _DEEPEST:
        raise _Invalid(f"{_path(at)} is nested too deeply", f"use at most {_DEEPEST} nested levels")
    if value is not None and not isinstance(value, (bool, int, float, str, Mapping, list, tuple)):
        kind = type(value).__name__
        raise _Invalid(f"{_path(at)} has the type {kind}, which JSON does not have", "write it as a string")
    if isinstance(value, Mapping):
        _check_table(hint, value, at, depth)
    elif isinstance(value, (list, tuple)):
        inner = _items(hint, len(value))
        for index, item in enumerate(value):
            # A record can hold 100,000 numbers, so build a path only for an item that needs a check.
            if not isinstance(item, (int, float, str)) or _fault(item):
                _check(inner[index], item, f"{at}[{index}]", depth + 1)


def _fault(value: object) -> str:
    """What makes a number or string invalid for any type; empty if it is valid."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, but must be finite"
    if isinstance(value, int):
        return "" if -_LARGEST <= value < _LARGEST else "does not fit in 64 bits"
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        return "contains an unpaired surrogate"
    return ""


def _check_table(hint: Any, table: Mapping[Any, Any], at: str, depth: int) -> None:
    fields, values = _table(hint)
    for key, item in table.items():
        if not isinstance(key, str):
            raise _Invalid(f"{_path(at)} has the key {key!r}, which is not a string", "quote the key")
        _check(str, key, f"a key of {_path(at)}", depth + 1)
        if fields is not None and key not in fields:
            raise _Invalid(f"unknown key {_under(at, key)!r}", nearest(key, fields), specific=True)
        _check(fields[key] if fields is not None else values, item, _under(at, key), depth + 1)


def _table(hint: Any) -> tuple[Mapping[str, Any] | None, Any]:
    """For a table type: the types of its keys, or the common type of its values."""
    for choice in _choices(hint):
        if (fields := fields_of(choice)) is not None:
            return fields, Any
        if _is_mapping(choice):
            return None, typing.get_args(choice)[1]
    return None, Any


def _items(hint: Any, count: int) -> list[Any]:
    """For a list type: the types of its items."""
    for choice in _choices(hint):
        arguments = typing.get_args(choice)
        if _is_mapping(choice) or not arguments or typing.get_origin(choice) is Literal:
            continue
        if typing.get_origin(choice) is not tuple or arguments[-1] is Ellipsis:
            return [arguments[0]] * count
        return [*arguments, *[Any] * count][:count]
    return [Any] * count


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _choices(hint: Any) -> tuple[Any, ...]:
    """Members of a union, without `Annotated` metadata."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _choices(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(choice for member in typing.get_args(hint) for choice in _choices(member))
    return (hint,)


def _explained(cls: Any, data: Any, fault: msgspec.ValidationError, at: str) -> tuple[str, str]:
    """A msgspec error in plain words with the keys of mappings, and a hint."""
    text = str(fault)
    found = _AT.search(text)
    kind, value, path = _followed(cls, data, found[2] if found else "", at)
    if found and found[1]:
        return _key_explained(kind, value, path)
    reported = text[: found.start()] if found else text
    if reported.startswith("Object missing required field"):
        name = reported.split("`")[1]
        fields, _ = _table(kind)
        wanted = _described((fields or {}).get(name, Any))
        return f"the key {_under(path, name)!r} is missing", f"add {name!r}: {wanted}"
    if isinstance(fault.__cause__, ValueError) and not isinstance(fault.__cause__, msgspec.ValidationError):
        return f"{_path(path)}: {reported}", "make its values consistent"  # from a __post_init__
    count = _length(kind)
    if count is not None and isinstance(value, (list, tuple)):
        what = f"{_path(path)} needs {count} values, has {len(value)}"
        return what, _example(cls, path, at) or f"write {count} values"
    what = f"{_path(path)} should be {_described(kind)}, not {_shown(value)}"
    return what, _example(cls, path, at) or f"change it to {_described(kind)}"


def _example(cls: Any, path: str, at: str) -> str:
    """A hint that shows the default of a key; empty without one."""
    name = ""
    default: Any = None
    for step in re.split(r"[.\[]", path.removeprefix(f"{at}.") if at else path):
        owner: Any = next((choice for choice in _choices(cls) if dataclasses.is_dataclass(choice)), None)
        entry = next((f for f in dataclasses.fields(owner) if f.name == step), None) if owner else None
        if entry is None:
            break
        name, default, cls = step, entry.default, (fields_of(owner) or {})[step]
    shown = isinstance(default, (bool, int, float, str, tuple)) and default not in ("", ())
    return f"for example, {name} = {json.dumps(default)}" if shown else ""


def _key_explained(hint: Any, table: Mapping[str, Any], path: str) -> tuple[str, str]:
    """What is wrong with a key of a mapping whose keys have a type, and a hint."""
    kind = next(typing.get_args(choice)[0] for choice in _choices(hint) if _is_mapping(choice))
    key = next(key for key in table if not _fits(key, kind))
    return f"the key {_under(path, key)!r} should be {_described(kind)}", f"rename it to {_described(kind)}"


def _followed(hint: Any, value: Any, steps: str, at: str) -> tuple[Any, Any, str]:
    """Type, value and path at msgspec's path, which has "[...]" for any key of a mapping."""
    for step in _STEP.finditer(steps):
        name, index = step.groups()
        if name is not None:
            fields, _ = _table(hint)
            hint, value, at = (fields or {}).get(name, Any), value[name], _under(at, name)
        elif index is not None:
            hint, value = _items(hint, len(value))[int(index)], value[int(index)]
            at = f"{at}[{index}]"
        else:
            _, hint = _table(hint)
            key = next(key for key, item in value.items() if not _fits(item, hint))
            value, at = value[key], _under(at, key)
    return hint, value, at


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _length(hint: Any) -> int | None:
    """Length of a fixed-length tuple type; None for other types."""
    for choice in _choices(hint):
        arguments = typing.get_args(choice)
        if typing.get_origin(choice) is tuple and arguments[-1:] != (Ellipsis,):
            return len(arguments)
    return None


def _described(hint: Any) -> str:
    """Description of a type."""
    if typing.get_origin(hint) is Annotated:
        texts = [m.description for m in hint.__metadata__ if isinstance(m, Meta) and m.description]
        return str(texts[0]) if texts else _described(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_described(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, typing.get_args(hint)))}"
    if hint in _WORDS:
        return _WORDS[hint]
    if isinstance(hint, type) and hasattr(hint, "__members__"):
        return f"one of {', '.join(repr(member.value) for member in hint.__members__.values())}"
    return "a table" if _is_mapping(hint) or fields_of(hint) is not None else "a list"


def _shown(value: object) -> str:
    """A value, shortened, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _under(at: str, key: str) -> str:
    if not key.isidentifier():
        return f"{at}[{key if len(key) <= 60 else key[:57] + '...'!r}]"
    return f"{at}.{key}" if at else key


def _path(at: str) -> str:
    return at or "the file"
