"""Mutations of TOML: other literals, keys and tables."""

from __future__ import annotations

import re
from random import Random

from tools.check.fuzz.mutators import octets, text

LITERALS = (
    "0", "-1", "1", "2", "1.5", "inf", "-inf", "nan", "-0.0", "1e400", "9223372036854775808", "9" * 4400,
    "0x7f", "0o7", "true", "false", '""', "''", '"x"', f'"{"x" * 3000}"', '"a\\u0000b"', '"../x"',
    '"/etc/passwd"', '"\\u202E"', "[]", "[[]]", "{}", "{ a = 1 }", "[1, 2, 3]", '["a", 1]',
    "[ 0.5, 0.5, 0.5 ]", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "[" * 400 + "]" * 400,
    "[" * 2000, "{ a = " * 200 + "1" + " }" * 200, '"""a\nb"""', "1_000", "01", "+1", "'a\\'", "@", "",
)  # fmt: skip
_LINE = re.compile(r"^(\s*[\w.\"'-]+\s*=\s*)(.*)$")


def edit(dice: Random, content: str) -> tuple[bytes, str]:
    """One mutation of a TOML file, and its name."""
    kind = dice.random()
    if kind < 0.1:
        return octets.damage(dice, content.encode())
    if kind < 0.3:
        return text.encoded(dice, content)
    rows = content.split("\n")
    keyed = [index for index, row in enumerate(rows) if _LINE.match(row)]
    at = dice.choice(keyed)
    found = _LINE.match(rows[at])
    assert found is not None
    match dice.randrange(8):
        case 0 | 1 | 2:
            rows[at], how = found[1] + dice.choice(LITERALS), "other literal"
        case 3:
            rows[at], how = found[1] + text.edit(dice, found[2])[0], "other value"
        case 4:
            rows[at], how = _other_key(dice, found[1]) + found[2], "other key"
        case 5:
            rows.insert(dice.randrange(len(rows)), rows[at])
            how = "line elsewhere"
        case 6:
            del rows[at]
            how = "missing line"
        case _:
            table = dice.choice(
                ("[strange]", "[[input]]", "[model]", "[a.b.c]", "[]", "[weights.rename]", "[gates]")
            )
            rows.insert(dice.randrange(len(rows)), table)
            how = "other table"
    return "\n".join(rows).encode("utf-8", "surrogatepass"), how


def _other_key(dice: Random, given: str) -> str:
    key = given.split("=")[0].strip()
    new = dice.choice(
        (f"{key}x", key[:-1] or "a", key.upper(), f'"{key}"', f"{key}.a", "a." * 300 + key, '""', "é")
    )
    return f"{new} = "
