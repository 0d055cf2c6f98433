"""Estimates whether a calibration set is large enough, from the results of its folds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cnnx.quant.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Spread:
    """Variation of one tensor's range between folds.

    Attributes:
        tensor: name of the tensor.
        amax: range from the whole set.
        folds: range from each fold; 0 if the fold has none.
        ratio: largest over smallest range of the folds; infinite if a fold has none.
    """

    tensor: str
    amax: float
    folds: tuple[float, ...]
    ratio: float


def spreads(whole: Calibration, folds: Sequence[Calibration]) -> tuple[Spread, ...]:
    """Return the spread of every tensor that has a range, largest first."""
    found = []
    for name, kept in whole.ranges.items():
        of_folds = tuple(fold.ranges[name].amax for fold in folds)
        if kept.amax > 0:
            ratio = max(of_folds) / min(of_folds) if min(of_folds) > 0 else math.inf
            found.append(Spread(name, kept.amax, of_folds, ratio))
    return tuple(sorted(found, key=lambda spread: -spread.ratio))


def still_moves(whole: float, folds: Sequence[float]) -> float:
    """Estimate how far a figure of the whole set is from that of another set of its size, or an infinite one.

    The estimate is the sum of two parts:

    * Bias, which more images would reduce. If the figure's excess falls as 1/n, and k folds of n/k images
      exceed the whole by d on average, then the whole exceeds an infinite set by d / (k - 1).
    * Random variation: twice the standard deviation of the folds, divided by the root of k for a set k times
      their size.

    Args:
        whole: figure from all images; smaller is better.
        folds: figure from each fold, at least two.
    """
    if not all(map(math.isfinite, (whole, *folds))):
        return math.inf
    excess = max(0.0, statistics.fmean(folds) - whole) / (len(folds) - 1)
    return excess + 2 * statistics.stdev(folds) / math.sqrt(len(folds))
