"""Whether a calibration set is large enough, from what its parts, taken alone, would have given."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cnnx.quant.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Spread:
    """How far one tensor's range moves from fold to fold.

    Attributes:
        tensor: its name.
        amax: the range that the whole set gives.
        folds: those that each fold gives; 0 where it gave none.
        ratio: the largest fold's over the smallest fold's; infinite where a fold gave none.
    """

    tensor: str
    amax: float
    folds: tuple[float, ...]
    ratio: float


def spreads(whole: Calibration, folds: Sequence[Calibration]) -> tuple[Spread, ...]:
    """Of every tensor that has a range, the one that moves most first."""
    found = []
    for name, kept in whole.ranges.items():
        of_folds = tuple(fold.ranges[name].amax for fold in folds)
        if kept.amax > 0:
            ratio = max(of_folds) / min(of_folds) if min(of_folds) > 0 else math.inf
            found.append(Spread(name, kept.amax, of_folds, ratio))
    return tuple(sorted(found, key=lambda spread: -spread.ratio))


def still_moves(whole: float, folds: Sequence[float]) -> float:
    """How far a figure of the whole set may lie from that of another set of its size, or of an endless one.

    Two parts. What more pictures would mend: if the figure's excess falls as 1/n, and k folds of n/k pictures
    exceed the whole by d on average, then the whole still exceeds an endless set by d / (k - 1). And what
    chance moves: the folds' standard deviation, over the root of k for a set k times their size; twice it.

    Args:
        whole: the figure by all pictures; smaller is better.
        folds: the figures by each of at least two folds.
    """
    if not all(map(math.isfinite, (whole, *folds))):
        return math.inf
    excess = max(0.0, statistics.fmean(folds) - whole) / (len(folds) - 1)
    return excess + 2 * statistics.stdev(folds) / math.sqrt(len(folds))
