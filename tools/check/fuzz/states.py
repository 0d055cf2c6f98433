"""Whether a result says what a document states: an oracle for files of keys and values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def states(result: Any, document: Any) -> bool:
    """Whether a result has every value of a document at the same place; it may have more, as defaults."""
    if isinstance(document, Mapping):
        return isinstance(result, Mapping) and all(
            key in result and states(result[key], value) for key, value in document.items()
        )
    if isinstance(document, (list, tuple)):
        return (
            isinstance(result, Sequence)
            and len(result) == len(document)
            and all(map(states, result, document))
        )
    if isinstance(document, bool) or isinstance(result, bool) or document is None:
        return result is document
    if isinstance(result, float) and isinstance(document, int):
        document = float(document)
    return bool(result == document)


def numbers_in(text: str) -> set[float]:
    """Every number that stands in a text."""
    return {float(found) for found in _NUMBER.findall(text)}


def leaves(data: Any) -> Iterator[Any]:
    """The values of plain data, without their keys."""
    inner = data.values() if isinstance(data, Mapping) else data if isinstance(data, (list, tuple)) else None
    if inner is None:
        yield data
    else:
        for each in inner:
            yield from leaves(each)
