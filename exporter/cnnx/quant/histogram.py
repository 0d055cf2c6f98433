"""Statistics of one activation tensor that fit in a fixed amount of memory, however many pictures pass.

The histogram of |x| has logarithmic bins cut out of the float's own bits: the exponent and the first ten
bits of the mantissa number the bin. Nothing has to be known of the range beforehand and nothing is ever
binned again, so statistics of two halves add up to exactly those of the whole, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError

# IEEE 754 binary32: one sign bit, eight exponent bits with bias 127, 23 mantissa bits.
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = 0x7F800000
_MANTISSA_KEPT = 10
_SHIFT = 23 - _MANTISSA_KEPT
# From 2^-24, the smallest number of FP16, to 2^16, past its largest. The end bins take what lies beyond.
_LOWEST, _OCTAVES = -24, 40
_FIRST = (127 + _LOWEST) << _MANTISSA_KEPT
BINS = _OCTAVES << _MANTISSA_KEPT
# A chunk and its bin numbers stay in the second-level cache: measured 6 ns a value, against 9 ns unchunked.
# Picking out a ReLU's zeros first costs more (10 ns, branches) than letting them run along.
_CHUNK = 1 << 16


class TensorStatistics:
    """Running statistics of one tensor's values, in 320 KiB.

    Attributes:
        count: finite values seen, zeros included.
        zeros: values that were exactly zero.
        nonfinite: NaN and infinite values seen; they enter nothing else.
    """

    __slots__ = ("_counts", "_top", "count", "nonfinite", "zeros")

    def __init__(self) -> None:
        self.count = 0
        self.zeros = 0
        self.nonfinite = 0
        self._top = 0  # bits of the largest |x|: they order as the floats do
        self._counts: NDArray[np.int64] = np.zeros(BINS, np.int64)

    def tell_maximum(self, maximum: float) -> None:
        """Say how large |x| (a float32) became, where `update` sees only a sample of the values."""
        self._top = max(self._top, int(np.array(abs(maximum), np.float32).view(np.int32)))

    @property
    def maximum(self) -> float:
        """Largest finite |x| seen or told of, exactly; 0 where there was none."""
        return float(np.array(self._top, np.int32).view(np.float32))

    @property
    def zeros_share(self) -> float | None:
        """Share of values that are exactly zero; None where values were not counted."""
        return self.zeros / self.count if self.count else None

    def update(self, values: NDArray[Any]) -> None:
        """Take in an array of any shape, float32 (what is not is cast to it)."""
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.int32)
        for start in range(0, bits.size, _CHUNK):
            self._take(bits[start : start + _CHUNK] & _MAGNITUDE)

    def _take(self, bits: NDArray[np.int32]) -> None:
        """Count one chunk of sign-less floats, given as bits; the chunk is used up."""
        top = int(bits.max())
        if top >= _INFINITY:
            finite = bits[bits < _INFINITY]
            self.nonfinite += bits.size - finite.size
            bits, top = finite, int(finite.max(initial=0))
        zeros = bits.size - int(np.count_nonzero(bits))
        self._top = max(self._top, top)
        self.count += bits.size
        self.zeros += zeros
        bits >>= _SHIFT
        bits -= _FIRST
        np.clip(bits, 0, BINS - 1, out=bits)
        self._counts += np.bincount(bits.astype(np.intp), minlength=BINS)
        self._counts[0] -= zeros

    def merge(self, other: TensorStatistics) -> None:
        """Add what another saw. Any split of the values, in any order, gives the same statistics."""
        self.count += other.count
        self.zeros += other.zeros
        self.nonfinite += other.nonfinite
        self._top = max(self._top, other._top)
        self._counts += other._counts

    def share_above(self, threshold: float) -> float:
        """Share of the non-zero values with |x| > threshold, which falls inside a bin of 0.1 %."""
        nonzero = self.count - self.zeros
        if nonzero == 0 or threshold >= self.maximum:
            return 0.0
        return float(1 - self._counted_up_to(np.array([threshold]))[0] / nonzero)

    def quantile(self, share: float) -> float:
        """The end of the bin up to which at least this share of the values lies, zeros included."""
        if share * self.count <= self.zeros:
            return 0.0
        place = int(np.searchsorted(self.zeros + np.cumsum(self._counts), share * self.count))
        return float(min(_edges()[min(place, BINS - 1) + 1], self.maximum))

    def filled(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|x| in the middle of each bin that is not empty, and how many values it holds; no zeros."""
        edges = np.minimum(_edges(), self.maximum)
        places = np.flatnonzero(self._counts)
        return (edges[places] + edges[places + 1]) / 2, self._counts[places].astype(np.float64)

    def linear(self, bins: int) -> NDArray[np.float64]:
        """The non-zero values read as a histogram of |x| in equal bins over 0..maximum.

        A logarithmic bin that straddles equal bins is shared out in proportion to the overlap. At the top
        of the range, where they are widest, logarithmic bins are about as wide as 2048 equal ones.
        """
        return np.diff(self._counted_up_to(np.linspace(0, self.maximum, bins + 1)))

    def _counted_up_to(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        cumulated = np.concatenate(([0], np.cumsum(self._counts)))
        counted: NDArray[np.float64] = np.interp(values, np.minimum(_edges(), self.maximum), cumulated)
        return counted

    def to_arrays(self) -> dict[str, NDArray[np.int64]]:
        """All there is to know, to be saved and taken up again with `from_arrays`."""
        totals = np.array([self._top, self.count, self.zeros, self.nonfinite], np.int64)
        return {"counts": self._counts.copy(), "totals": totals}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TensorStatistics:
        """Statistics as `to_arrays` gave them.

        Raises:
            BundleError: the arrays are not what `to_arrays` gives, or do not add up.
        """
        made = cls()
        counts, totals = arrays.get("counts"), arrays.get("totals")
        if counts is None or totals is None or counts.shape != (BINS,) or totals.shape != (4,):
            raise BundleError(
                f"saved statistics need counts ({BINS},) and totals (4,)", mend="calibrate again"
            )
        made._top, made.count, made.zeros, made.nonfinite = (int(total) for total in totals)
        made._counts = counts.astype(np.int64)
        if int(counts.sum()) != made.count - made.zeros:
            raise BundleError(
                f"saved statistics count {int(counts.sum())} non-zero values in bins and "
                f"{made.count - made.zeros} in all",
                mend="calibrate again",
            )
        return made


def _edges() -> NDArray[np.float64]:
    """Where the bins begin, and where the last one ends."""
    numbers = np.arange(_FIRST, _FIRST + BINS + 1, dtype=np.int32)
    edges = (numbers << _SHIFT).view(np.float32).astype(np.float64)
    edges[0], edges[-1] = 0, np.inf
    return edges
