"""Calibration methods: choose the range of a tensor that INT8 represents; values beyond it are clipped.

A method is a function from statistics and the number of values that INT8 tells apart to amax, the largest
|x| to represent. It has an entry in `METHODS`.
"""

from __future__ import annotations

import difflib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import UsageError
from cnnx.quant.histogram import TensorStatistics


class Method(Protocol):
    """Chooses the range of a tensor."""

    def __call__(self, statistics: TensorStatistics, levels: int = ..., /) -> float:
        """The |x| to represent at most."""


_BINS = 2048
LEVELS = 128
"""Values of |x| that symmetric INT8 tells apart."""
ONE_SIDED_LEVELS = 256
"""Values of x that centered INT8 tells apart, where x is never negative."""

# Ranges that clip more than this share of the values are not considered. If nearly all values are outside,
# the rest may be a single bin, which has no divergence at all.
_MOST_CLIPPED = 0.05


def maximum(statistics: TensorStatistics, _: int = LEVELS) -> float:
    """Return the largest |x|: nothing is clipped, but a single outlier makes every step coarser."""
    return statistics.maximum


def entropy(statistics: TensorStatistics, levels: int = LEVELS) -> float:
    """Return the range that loses the least information, as in TensorRT's entropy calibrator.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017: |x| is counted in 2048 bins. Among all ranges of at
    least 128 bins, the method takes the one whose 128-level version has the smallest Kullback-Leibler
    divergence from the original. Exact zeros and the first bin are left out (NVIDIA's pytorch-quantization
    overwrites that bin, too). The zeros of a ReLU are exact under any range and would only dominate the
    histogram.

    Returns:
        amax in the tensor's unit; the maximum if all values are in the first bin; 0 for a tensor of zeros.
    """
    counts = statistics.linear(_BINS)
    counts[0] = 0
    if not counts.any():
        return statistics.maximum
    clipped = 1 - np.cumsum(counts)[levels - 1 :] / counts.sum()
    candidates = np.where(clipped <= _MOST_CLIPPED, divergences(counts, levels), np.inf)
    kept = levels + int(np.argmin(candidates))
    return min((kept + 0.5) / _BINS, 1.0) * statistics.maximum


def percentile(share: float) -> Method:
    """Return a method that keeps this share of the values, including exact zeros, and clips the rest.

    If the result is zero (a tensor of zeros with few other values), nothing is clipped.
    """

    def method(statistics: TensorStatistics, _: int = LEVELS) -> float:
        return statistics.quantile(share) or statistics.maximum

    return method


def mean_squared_error(statistics: TensorStatistics, levels: int = LEVELS) -> float:
    """Return the range with the smallest mean squared error from rounding to 127 steps and clipping.

    The search covers 48 ranges, spaced evenly on a logarithmic scale over the three octaves below the
    maximum, and then 33 around the best of those.

    Returns:
        amax in the tensor's unit; 0 for a tensor of zeros.
    """
    values, counts = statistics.filled()
    if not len(values):
        return statistics.maximum

    def error(octave: float) -> float:
        step = statistics.maximum * 2**octave / (levels - 1)
        rounded = np.minimum(np.rint(values / step), levels - 1) * step
        return float(counts @ (values - rounded) ** 2)

    coarse = np.linspace(0, -3, 48)  # widest first: min() takes the first of equal errors
    best = min(coarse, key=error)
    fine = np.linspace(min(0, best + 3 / 47), best - 3 / 47, 33)
    return float(statistics.maximum * 2 ** min((best, *fine), key=error))


def divergences(counts: NDArray[np.float64], levels: int = LEVELS) -> NDArray[np.float64]:
    """Return KL(P || Q) in nats for each range of 128, 129, ... len(counts) bins.

    P is the range, with the values beyond it added to its last non-empty bin. Migacz adds them to the last
    bin. If that bin were empty, the divergence would be infinite, and one far outlier would rule out every
    range but the widest. Q is the range without the values beyond it, in 128 levels. The mass of each level
    is spread evenly over its non-empty bins. The result is infinite for an empty range.

    With prefix sums, the levels of all ranges are differences of two lookups, without rebinning.
    """
    ranges = np.arange(levels, len(counts) + 1)
    edges = -(-np.arange(levels + 1) * ranges[:, None] // levels)  # bin b is in level floor(128 b / range)
    mass = np.concatenate(([0.0], np.cumsum(counts)))
    filled = np.concatenate(([0], np.cumsum(counts > 0)))
    information = np.concatenate(([0.0], np.cumsum(_x_log_x(counts))))
    level_mass = np.diff(mass[edges])
    level_filled = np.diff(filled[edges])

    total, inside = mass[-1], mass[ranges]
    outside = total - inside
    last = np.maximum.accumulate(np.where(counts > 0, np.arange(len(counts)), 0))[ranges - 1]
    p_log_p = information[last] + _x_log_x(counts[last] + outside)
    p_mass = level_mass.copy()
    p_mass[np.arange(len(ranges)), last * levels // ranges] += outside
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.log(level_mass / level_filled / inside[:, None])
        p_log_q = np.where(level_mass > 0, p_mass * log_q, 0.0).sum(axis=1)
    result: NDArray[np.float64] = (p_log_p - p_log_q) / total - np.log(total)
    return np.where(inside > 0, result, np.inf)


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * np.log(values, out=np.zeros_like(values), where=values > 0)


FILE = "file"
"""Not a method of `METHODS`, as it takes no statistics: the scales that the network's own file gives."""

METHODS: dict[str, Method] = {
    "entropy": entropy,
    "max": maximum,
    "mse": mean_squared_error,
    "percentile-99.9": percentile(0.999),
    "percentile-99.99": percentile(0.9999),
    "percentile-99.999": percentile(0.99999),
}


def check_method(method: str) -> None:
    """Refuse an unknown calibration method.

    Raises:
        UsageError: the name is neither in `METHODS` nor `FILE`.
    """
    if method not in METHODS and method != FILE:
        choices = ["auto", *METHODS]
        near = difflib.get_close_matches(method, choices, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join((*choices, FILE))}"
        raise UsageError(f"unknown calibration method {method!r}", hint=hint)
