"""Mutations of bytes, whatever they mean."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

LENGTHS = (0, 1, 2, 3, 7, 8, 127, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Values that lengths and counts are often not checked against."""


def flip(dice: Random, content: bytes) -> bytes:
    """A few bits are turned."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def truncate(dice: Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: dice.randrange(len(content))]


def drop(dice: Random, content: bytes) -> bytes:
    """A part is missing."""
    start = dice.randrange(len(content))
    return content[:start] + content[start + 1 + _length(dice, content) :]


def repeat(dice: Random, content: bytes) -> bytes:
    """A part is there twice."""
    start, length = dice.randrange(len(content)), _length(dice, content)
    return content[: start + length] + content[start:]


def splice(dice: Random, content: bytes) -> bytes:
    """A part is overwritten by another part."""
    length, source, target = (
        _length(dice, content),
        dice.randrange(len(content)),
        dice.randrange(len(content)),
    )
    return content[:target] + content[source : source + length] + content[target + length :]


def noise(dice: Random, content: bytes) -> bytes:
    """A part is random, or all zeros or ones."""
    start = dice.randrange(len(content))
    length = min(_length(dice, content), len(content) - start)
    part = dice.choice((dice.randbytes(length), bytes(length), b"\xff" * length))
    return content[:start] + part + content[start + length :]


def number(dice: Random, content: bytes, *, within: int | None = None) -> bytes:
    """An integer of 1 to 8 bytes is overwritten, in one byte order or the other.

    Args:
        within: only in this number of first bytes, such as those of a header.
    """
    width = dice.choice((1, 2, 4, 8))
    value = dice.choice((*LENGTHS, dice.getrandbits(8 * width), len(content))) % (1 << 8 * width)
    start = dice.randrange(max(1, min(within or len(content), len(content) - width)))
    new = value.to_bytes(width, dice.choice(("little", "big")))
    return content[:start] + new + content[start + width :]


def extend(dice: Random, content: bytes) -> bytes:
    """Something follows the end."""
    return content + dice.choice((b"\0", bytes(4096), dice.randbytes(64), content))


ALL: tuple[Callable[[Random, bytes], bytes], ...] = (
    flip, flip, truncate, drop, repeat, splice, noise, number, extend,
)  # fmt: skip


def damage(dice: Random, content: bytes) -> tuple[bytes, str]:
    """One mutation, and its name."""
    if not content:
        return dice.randbytes(dice.randrange(1, 64)), "noise"
    mutation = dice.choice(ALL)
    return mutation(dice, content), mutation.__name__


def _length(dice: Random, content: bytes) -> int:
    return dice.choice((1, 2, 4, 16, dice.randrange(1, len(content) + 1)))
