"""Random numbers for batches of images, with one independent stream per image.

Value n of a stream is a function of its key and n (SplitMix64: Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014). An image gets the same numbers in every batch. They are
computed with integer arithmetic, so they do not depend on the version of NumPy.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
"""float32 everywhere: NumPy keeps the type in arithmetic with Python numbers, but its type stubs do not."""
Words = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """One stream for each of N images; all advance together."""

    def __init__(self, seed: int, split: str, indices: ArrayLike) -> None:
        base = _mixed(np.array([seed << 32 | zlib.crc32(split.encode())], np.uint64))
        self._keys = _mixed(base + np.asarray(indices, np.uint64) * _STEP)
        self._taken = 0

    def words(self, count: int) -> Words:
        """Return the next values of each stream, (N, count)."""
        steps = np.arange(self._taken + 1, self._taken + 1 + count, dtype=np.uint64)
        self._taken += count
        return _mixed(self._keys[:, None] + steps * _STEP)

    def uniform(self, low: float, high: float) -> Floats:
        """Return one value per image, (N, 1, 1)."""
        value: Floats = self.uniforms(1, low, high)[0]
        return value

    def uniforms(self, count: int, low: float, high: float) -> Floats:
        """Return several values per image, (count, N, 1, 1)."""
        shares = (self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (low + (high - low) * shares).astype(np.float32).T[:, :, None, None]

    def coin(self) -> NDArray[np.bool_]:
        """Return a random bit per image, (N, 1, 1)."""
        return self.words(1)[:, :, None] >= np.uint64(1 << 63)

    def directions(self, count: int) -> tuple[Floats, Floats]:
        """Return cosines and sines of nearly uniform angles, (count, N, 1, 1) each.

        They are rational points of the circle, because the last bit of `np.sin` differs between machines.
        """
        slope = self.uniforms(count, -1, 1)
        side = np.where(self.uniforms(count, -1, 1) < 0, np.float32(-1), np.float32(1))
        scale = side / (1 + slope * slope)
        return (1 - slope * slope) * scale, 2 * slope * scale


def _mixed(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed
