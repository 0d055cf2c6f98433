"""How the tensors of an engine lie in memory, as its builder reports it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

_WIDE = {"two": 2, "four": 4, "eight": 8, "sixteen": 16, "thirty-two": 32}
_VECTORIZED = re.compile(r"([\w-]+) wide channel vectorized", re.IGNORECASE)
_PADDED = re.compile(r"channel % (\d+) == 0")


@dataclass(frozen=True, slots=True)
class Layout:
    """How the values of a tensor (N, C, ...) lie in memory; row by row by default.

    Attributes:
        strides: distance of neighbours along each axis, in values; empty if the other attributes say it.
        channels_last: whether the channels of a position lie together.
        together: channels that lie together in a row-major tensor, such as 32 in NC/32HW32.
        multiple: the channels are padded to a multiple of this.
    """

    strides: tuple[int, ...] = ()
    channels_last: bool = False
    together: int = 1
    multiple: int = 1

    def elements(self, shape: Sequence[int]) -> int:
        """Number of values from the first to the last, with padding."""
        if self._has_strides(shape):
            return 1 + sum((n - 1) * stride for n, stride in zip(shape, self.strides, strict=True))
        return math.prod(self._padded(shape))

    def unpacked(self, flat: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """The tensor of a shape from its `elements`."""
        if self._has_strides(shape):
            steps = [stride * flat.itemsize for stride in self.strides]
            return np.ascontiguousarray(as_strided(flat, tuple(shape), steps))
        if len(shape) < 2 or not (self.channels_last or self.together > 1):
            return flat.reshape(tuple(shape))
        batch, channels, *rest = padded = self._padded(shape)
        if self.channels_last:
            found = np.moveaxis(flat.reshape(batch, *rest, channels), -1, 1)
        else:
            blocks = flat.reshape(batch, channels // self.together, *rest, self.together)
            found = np.moveaxis(blocks, -1, 2).reshape(padded)
        return np.ascontiguousarray(found[:, : shape[1]])

    def _has_strides(self, shape: Sequence[int]) -> bool:
        """Whether strides are known for this number of axes; the same values may be emitted with fewer."""
        return bool(self.strides) and len(self.strides) == len(shape)

    def _padded(self, shape: Sequence[int]) -> list[int]:
        if len(shape) < 2:
            return [*shape]
        multiple = max(self.multiple, self.together)
        return [shape[0], -(-shape[1] // multiple) * multiple, *shape[2:]]


LINEAR = Layout()


def layout_in(words: str) -> Layout | None:
    """The layout that TensorRT's words for a format describe; None if they are not known.

    "Thirty-two wide channel vectorized row major Int8 format", "Channel major FP16 format where channel % 8
    == 0", "Row major linear FP32".
    """
    lower = words.lower()
    padded = _PADDED.search(lower)
    multiple = int(padded[1]) if padded else 1
    if "stride" in lower:  # of DLA: rows have an alignment
        return None
    if found := _VECTORIZED.search(lower):
        together = _WIDE.get(found[1])
        return Layout(together=together) if together else None
    if "channel major" in lower:
        return Layout(channels_last=True, multiple=multiple)
    return LINEAR if "row major" in lower else None
