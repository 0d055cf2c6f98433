"""Mutations of lines of text: strange characters, encodings, numbers and lengths."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

STRANGE = (
    "", " ", "\0", "\ufeff", "\u202e", "\u2028", "\x85", "\x0b", "\x1b[31m", "\r", "\t", "'", '"', "\\", "#",
    "%", "$HOME", "`id`", "../", "/", "~", "é", "e\u0301", "ß", "İ", "²", "٣", "\U0001f600", "\uffff", "\x7f",
    "-", "=", ",", ";", "<img src=x>", "NaN", "null", "None", "{}", "{0}", "%s",
)  # fmt: skip
NUMBERS = (
    "0", "-0", "-1", "1", "+1", "01", "1_000", "0x10", "1e3", "1e400", "-1e400", "1e-400", "1.", ".5",
    "1.2.3", "nan", "inf", "-inf", "9" * 19, "9" * 40, "9" * 5000, "0." + "3" * 400, "2147483648",
    "4294967296", "18446744073709551616", "true", "", " ", "٣", "²", "½", "1,5", "e", "+", "--1", "1e",
    "0b1", "1e+-1",
)  # fmt: skip
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def number(dice: Random, text: str) -> str:
    """A number has another value, or is none."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return insert(dice, text)
    place = dice.choice(found)
    return text[: place.start()] + _other_number(dice, place[0]) + text[place.end() :]


def insert(dice: Random, text: str) -> str:
    """Something strange stands between two characters."""
    at = dice.randrange(len(text) + 1)
    return text[:at] + dice.choice(STRANGE) * dice.choice((1, 1, 1, 3, 200)) + text[at:]


def replace(dice: Random, text: str) -> str:
    """A character is another."""
    at = dice.randrange(len(text) or 1)
    return text[:at] + dice.choice((*STRANGE, chr(dice.randrange(32, 127)))) + text[at + 1 :]


def cut(dice: Random, text: str) -> str:
    """A part is missing."""
    start = dice.randrange(len(text) or 1)
    return text[:start] + text[start + dice.choice((1, 1, 2, 5, 40)) :]


def lines(dice: Random, text: str) -> str:
    """A line is missing, twice there, elsewhere, empty, very long, or joined to the next."""
    parts = text.split("\n")
    at, other = dice.randrange(len(parts)), dice.randrange(len(parts))
    match dice.randrange(7):
        case 0:
            del parts[at]
        case 1:
            parts.insert(other, parts[at])
        case 2:
            parts[at], parts[other] = parts[other], parts[at]
        case 3:
            parts[at] = ""
        case 4:
            parts[at] = parts[at] * dice.choice((2, 100, 3000))
        case 5:
            parts[at : at + 2] = ["".join(parts[at : at + 2])]
        case _:
            parts[at:at] = [parts[at]] * dice.choice((2, 50, 1000))
    return "\n".join(parts)


def words(dice: Random, text: str) -> str:
    """Two words of a line change places, or one is missing or twice there."""
    parts = text.split(" ")
    at, other = dice.randrange(len(parts)), dice.randrange(len(parts))
    match dice.randrange(3):
        case 0:
            parts[at], parts[other] = parts[other], parts[at]
        case 1:
            parts.insert(at, parts[other])
        case _:
            del parts[at]
    return " ".join(parts)


ALL: tuple[Callable[[Random, str], str], ...] = (number, number, insert, replace, cut, lines, words)


def edit(dice: Random, text: str) -> tuple[str, str]:
    """One mutation of text, and its name."""
    mutation = dice.choice(ALL)
    return mutation(dice, text), mutation.__name__


def encoded(dice: Random, text: str) -> tuple[bytes, str]:
    """One mutation of text in UTF-8, or the text in another encoding."""
    if dice.random() < 0.06:
        name = dice.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7"))
        return text.encode(name, "replace"), name
    if dice.random() < 0.06:
        return text.replace("\n", dice.choice(("\r\n", "\r", "\n\n", "\0"))).encode(), "newlines"
    changed, how = edit(dice, text)
    return changed.encode("utf-8", "surrogatepass"), how


def _other_number(dice: Random, found: str) -> str:
    if dice.random() < 0.3:
        value = float(found) * dice.choice((-1, 2, 10, 1e-3, 1e9)) + dice.choice((0, 0, 1))
        return str(int(value)) if found.lstrip("-+").isdigit() and abs(value) < 1e300 else repr(value)
    return dice.choice(NUMBERS)
