"""Parses TOML, for recipes and files of gates."""

from __future__ import annotations

import re
import sys
from typing import Any

from cnnx.limits import KEY_PARTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A dot between two parts of a key, whose parts are quoted or bare.
_DIVIDER = re.compile(r"[\w\"'-]\s*\.\s*(?=[\w\"'-])")


def parse_toml(text: str) -> dict[str, Any]:
    """The content of a TOML document.

    Raises:
        ValueError: it is not valid, nested too deeply, or has a key of more than `KEY_PARTS` parts.
    """
    if any(line.count(".") > KEY_PARTS < len(_DIVIDER.findall(line)) for line in text.splitlines()):
        raise ValueError(f"a key has more than {KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
