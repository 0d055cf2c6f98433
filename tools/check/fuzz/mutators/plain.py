"""Mutations of plain data, as in JSON: other types and values; missing, unknown or duplicate keys."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from random import Random
from typing import Any

from tools.check.fuzz.mutators import octets, text

_DEEP: Any = []
for _ in range(60):
    _DEEP = [_DEEP]
WRONG: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**53 + 1, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308,
    math.nan, math.inf, -math.inf, "", " ", "0", "x" * 5000, "../a", "/etc/passwd", "a\0b", "\ud800",
    "\u202e", "é", [], [[]], {}, {"": 1}, {"x": {}}, [None] * 300, _DEEP,
)  # fmt: skip
"""Values that stand where others should."""

Path = tuple[str | int, ...]


def paths(data: Any, above: Path = ()) -> Iterator[Path]:
    """The path of every value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from paths(value, (*above, key))


def at(data: Any, path: Path) -> Any:
    """The value at a path."""
    for key in path:
        data = data[key]
    return data


def shorten(data: Any, *, most: int = 3) -> None:
    """Keep few numbers of each list of numbers, in place, so that changes hit other values as often."""
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for each in values:
        if isinstance(each, list) and len(each) > most and not isinstance(each[0], (dict, str)):
            del each[most:]
        shorten(each, most=most)


def change(dice: Random, data: Any) -> tuple[Any, str]:
    """A copy with one change, and its name."""
    data = copy.deepcopy(data)
    known = list(paths(data))
    if not known:
        return dice.choice(WRONG), "wrong value"
    path = _drawn(dice, known)
    above, key = at(data, path[:-1]), path[-1]
    match dice.randrange(10):
        case 0 | 1 | 2:
            above[key] = copy.deepcopy(dice.choice(WRONG))
            return data, "wrong value"
        case 3 | 4 | 5:
            above[key] = near(dice, above[key])
            return data, "other value"
        case 6:
            del above[key]
            return data, "missing key"
        case 7:
            if isinstance(above, dict):
                above[dice.choice(("strange", "", "\0", "é", str(key).upper(), f"{key} "))] = above[key]
            else:
                above.insert(int(key), copy.deepcopy(above[int(key)]))
            return data, "added key"
        case 8:
            above[key] = copy.deepcopy(at(data, dice.choice(known)))
            return data, "value of another key"
        case _:
            other = _drawn(dice, known)
            try:
                beside = at(data, other[:-1])
                above[key], beside[other[-1]] = beside[other[-1]], above[key]
            except (KeyError, IndexError, TypeError):
                return data, "other value"
            return (data if _ends(data) else {}), "values swapped"


def near(dice: Random, value: Any) -> Any:
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return dice.choice(
            (value + 1, value - 1, -value, 0, value * 1000, value // 2, 2**40, float(value % 2**53))
        )
    if isinstance(value, float):
        return dice.choice((value * 2, -value, 0.0, value + 1e-9, value * 1e30, 1e-30, 1.0, 0))
    if isinstance(value, str):
        return text.edit(dice, value)[0] if value else dice.choice(text.STRANGE)
    if isinstance(value, list):
        return dice.choice((value[:-1], value * 2, value[::-1], value[:1], [*value, *value[:1]]))
    if isinstance(value, dict):
        return dict(list(value.items())[:-1])
    return dice.choice(WRONG)


def json_text(dice: Random, data: Any) -> tuple[bytes, str]:
    """JSON of data with one change, or a damaged text."""
    plain = json.dumps(data, indent=1).encode()
    kind = dice.random()
    if kind < 0.12:
        return octets.damage(dice, plain)
    if kind < 0.2:
        return text.encoded(dice, plain.decode())
    if kind < 0.24:
        return _twice(dice, plain), "duplicate key"
    if kind < 0.26:
        depth = dice.choice((500, 100_000))
        return dice.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth)), "deep nesting"
    changed, how = change(dice, data)
    for _ in range(dice.choice((0, 0, 0, 1, 3))):
        changed, how = change(dice, changed)[0], "several changes"
    try:
        made = json.dumps(changed, indent=dice.choice((None, 1)), ensure_ascii=dice.random() < 0.5)
    except (ValueError, RecursionError):
        return b"9" * 5000, "huge number"
    return made.encode("utf-8", "surrogatepass"), how


def _twice(dice: Random, plain: bytes) -> bytes:
    """A line with a key, twice."""
    rows = plain.split(b"\n")
    keyed = [index for index, row in enumerate(rows) if row.rstrip().endswith(b",") and b'": ' in row]
    if not keyed:
        return plain + plain
    chosen = dice.choice(keyed)
    return b"\n".join([*rows[:chosen], rows[chosen], *rows[chosen:]])


def _drawn(dice: Random, known: list[Path]) -> Path:
    """A path; those near the top as often as the many below them."""
    level = dice.choice(sorted({len(path) for path in known}))
    return dice.choice([path for path in known if len(path) == level])


def _ends(data: Any) -> bool:
    """Whether data do not contain themselves."""
    try:
        json.dumps(data)
    except (ValueError, RecursionError):
        return False
    return True
