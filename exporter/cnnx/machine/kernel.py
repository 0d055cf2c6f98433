"""Reads numbers as the kernel prints them in /proc and /sys."""

from __future__ import annotations

import re

_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,19})\s*")
_MOST = 1 << 63


def integer_of(text: str) -> int | None:
    """The integer that a text consists of; None if it has none, or one of more than 64 bits."""
    found = _INTEGER.fullmatch(text)
    value = int(found[1]) if found else _MOST
    return value if -_MOST <= value < _MOST else None
