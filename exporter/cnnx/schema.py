"""Typed objects from plain data, as JSON and TOML give it: nothing unknown, nothing of another type.

msgspec converts and checks; this module adds what it does not have for dataclasses: unknown keys are refused
with the nearest known one, numbers must be finite and fit 64 bits, and every message names the whole path of
the key, such as `engines[0].batch[1]`.
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

T = TypeVar("T")

_END = r"(?![\s\S])"  # "$" would let a line break pass
Count = Annotated[int, Meta(ge=0, description="a whole number from 0")]
Positive = Annotated[int, Meta(ge=1, description="a whole number from 1")]
Quantity = Annotated[float, Meta(ge=0, description="a number from 0")]
Rate = Annotated[float, Meta(ge=0, le=1, description="a rate in 0..1, such as 0.95")]
Percent = Annotated[float, Meta(ge=0, le=100, description="a percentage in 0..100, such as 76.13")]
_HEX, _FILE = "[0-9a-f]{64}", r"(?!\.{1,2}" + _END + r")[^/\\\x00-\x1f]{1,255}"
_HEX_SAID, _FILE_SAID = (
    "a SHA-256 in lower-case hexadecimal",
    "the name of a file in this folder, without a path",
)
Digest = Annotated[str, Meta(pattern=f"^{_HEX}{_END}", description=_HEX_SAID)]
DigestOrEmpty = Annotated[str, Meta(pattern=f"^({_HEX})?{_END}", description=f"{_HEX_SAID}, or empty")]
FileName = Annotated[str, Meta(pattern=f"^{_FILE}{_END}", description=_FILE_SAID)]
FileNameOrEmpty = Annotated[str, Meta(pattern=f"^({_FILE})?{_END}", description=f"{_FILE_SAID}, or empty")]
Name = Annotated[
    str,
    Meta(
        pattern=rf"^[a-z0-9][a-z0-9_.-]*{_END}",
        description="a name of lower-case letters, digits, - _ and . that can name a folder",
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
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


class _Odd(Exception):
    """What is wrong, without the file it is in."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def from_plain(
    cls: type[T],
    data: object,
    *,
    where: object,
    error: type[CnnxError],
    at: str = "",
    mend: str | None = None,
) -> T:
    """An object of a type from plain data.

    Args:
        cls: a dataclass or a TypedDict, or a collection of such.
        data: mappings, lists, text and numbers.
        where: the file, for messages.
        error: class of the refusal.
        at: path of the key under which `data` stands in the file.
        mend: what helps, where a message has no better hint.

    Raises:
        error: a key is unknown or missing, or a value has another type or range.
    """
    try:
        _check(cls, data, at, 0)
        return msgspec.convert(data, cls)
    except _Odd as odd:
        raise error(odd.what, where=where, mend=odd.hint or mend) from None
    except msgspec.ValidationError as fault:
        raise error(_explained(cls, data, fault, at), where=where, mend=mend) from None


def plain_of(value: object) -> Any:
    """Plain data of an object that `from_plain` made: mappings, lists, text and numbers."""
    return msgspec.to_builtins(value)


def read_json(text: str | bytes, *, where: object, error: type[CnnxError], mend: str | None = None) -> Any:
    """JSON, to be handed to `from_plain`, which refuses NaN and infinities with their paths.

    Raises:
        error: no JSON, a key twice in one object, too deep nesting.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise error("no valid JSON: nested too deeply", where=where, mend=mend) from None
    except ValueError as fault:
        raise error(f"no valid JSON: {fault}", where=where, mend=mend) from None


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A hint that names the nearest of what is known, or all of it."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"


@functools.cache
def fields_of(cls: Any) -> Mapping[str, Any] | None:
    """Key -> type, of a dataclass or TypedDict; None for other types."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.metadata.get("key", True)}
    return typing.get_type_hints(cls, include_extras=True) if typing.is_typeddict(cls) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _check(hint: Any, value: object, at: str, depth: int) -> None:
    """Refuse what msgspec lets pass: unknown keys, and text and numbers that no JSON file should hold."""
    if fault := _fault(value):
        raise _Odd(f"{_path(at)} {fault}")
    if depth > _DEEPEST:
        raise _Odd(f"{_path(at)} is nested too deeply")
    if value is not None and not isinstance(value, (bool, int, float, str, Mapping, list, tuple)):
        raise _Odd(f"{_path(at)} is a {type(value).__name__}, which JSON has no word for")
    if isinstance(value, Mapping):
        _check_table(hint, value, at, depth)
    elif isinstance(value, (list, tuple)):
        inner = _items(hint, len(value))
        for place, item in enumerate(value):
            # A record has 100,000 numbers: a path is made for none of them.
            if not isinstance(item, (int, float, str)) or _fault(item):
                _check(inner[place], item, f"{at}[{place}]", depth + 1)


def _fault(value: object) -> str:
    """What is wrong with a number or a text whatever its type should be; empty: nothing."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, and must be finite"
    if isinstance(value, int):
        return "" if -_LARGEST <= value < _LARGEST else "is a number beyond 64 bits"
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        return "holds half of a surrogate pair"
    return ""


def _check_table(hint: Any, table: Mapping[Any, Any], at: str, depth: int) -> None:
    fields, values = _table(hint)
    for key, item in table.items():
        if not isinstance(key, str):
            raise _Odd(f"{_path(at)} has the key {key!r}, which is no text")
        _check(str, key, f"a key of {_path(at)}", depth + 1)
        if fields is not None and key not in fields:
            raise _Odd(f"unknown key {_under(at, key)!r}", nearest(key, fields))
        _check(fields[key] if fields is not None else values, item, _under(at, key), depth + 1)


def _table(hint: Any) -> tuple[Mapping[str, Any] | None, Any]:
    """Of a type that may be a table: its keys' types, or the one type of all values."""
    for choice in _choices(hint):
        if (fields := fields_of(choice)) is not None:
            return fields, Any
        if _is_mapping(choice):
            return None, typing.get_args(choice)[1]
    return None, Any


def _items(hint: Any, count: int) -> list[Any]:
    """Of a type that may be a list: the types of its items."""
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
    """The members of a union, without what `Annotated` adds."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _choices(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(choice for member in typing.get_args(hint) for choice in _choices(member))
    return (hint,)


def _explained(cls: Any, data: Any, fault: msgspec.ValidationError, at: str) -> str:
    """What msgspec found, with the keys of mappings and in plain words."""
    text = str(fault)
    found = _AT.search(text)
    hint, value, path = _followed(cls, data, found[2] if found else "", at)
    if found and found[1]:
        return _key_explained(hint, value, path)
    said = text[: found.start()] if found else text
    if said.startswith("Object missing required field"):
        return f"the key {_under(path, said.split('`')[1])!r} is missing"
    if isinstance(fault.__cause__, ValueError) and not isinstance(fault.__cause__, msgspec.ValidationError):
        return f"{_path(path)}: {said}"  # of a __post_init__
    count = _length(hint)
    if count is not None and isinstance(value, (list, tuple)):
        return f"{_path(path)} needs {count} values, has {len(value)}"
    return f"{_path(path)} should be {_described(hint)}, not {_shown(value)}"


def _key_explained(hint: Any, table: Mapping[str, Any], path: str) -> str:
    """What is wrong with a key of a mapping, whose keys have a type of their own."""
    kind = next(typing.get_args(choice)[0] for choice in _choices(hint) if _is_mapping(choice))
    key = next(key for key in table if not _fits(key, kind))
    return f"the key {_under(path, key)!r} should be {_described(kind)}"


def _followed(hint: Any, value: Any, steps: str, at: str) -> tuple[Any, Any, str]:
    """Type, value and path where msgspec's path leads; it writes "[...]" for any key of a mapping."""
    for step in _STEP.finditer(steps):
        name, place = step.groups()
        if name is not None:
            fields, _ = _table(hint)
            hint, value, at = (fields or {}).get(name, Any), value[name], _under(at, name)
        elif place is not None:
            hint, value = _items(hint, len(value))[int(place)], value[int(place)]
            at = f"{at}[{place}]"
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
    """How many values a tuple of fixed length has; None for other types."""
    for choice in _choices(hint):
        arguments = typing.get_args(choice)
        if typing.get_origin(choice) is tuple and arguments[-1:] != (Ellipsis,):
            return len(arguments)
    return None


def _described(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) is Annotated:
        said = [meta.description for meta in hint.__metadata__ if isinstance(meta, Meta) and meta.description]
        return str(said[0]) if said else _described(typing.get_args(hint)[0])
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
    """A value and its type, shortened."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _under(at: str, key: str) -> str:
    if not key.isidentifier():
        return f"{at}[{key if len(key) <= 60 else key[:57] + '...'!r}]"
    return f"{at}.{key}" if at else key


def _path(at: str) -> str:
    return at or "the file"
