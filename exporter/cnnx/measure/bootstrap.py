"""Confidence intervals for series with correlated neighbors, such as latencies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.stats import Interval

_RESAMPLES = 1000
# Values drawn at a time, which limits memory to about 10 MiB for long series.
_AT_ONCE = 1 << 21
# Successive insignificant correlations after which there are no more: max(5, sqrt(log10 n)) in the paper.
_QUIET = 5


@dataclass(frozen=True, slots=True)
class Intervals:
    """95 % confidence intervals of the mean and median of a series.

    Attributes:
        mean: interval of the arithmetic mean.
        median: interval of the median.
        block: block length of the bootstrap.
    """

    mean: Interval
    median: Interval
    block: int


def block_bootstrap(values: Sequence[float], *, seed: int = 0) -> Intervals | None:
    """Confidence intervals by circular block bootstrap (D. N. Politis and J. P. Romano, 1992).

    Successive runs share clocks, caches and background load. Treating them as independent would give
    intervals that are too narrow. 1,000 series are drawn in blocks, whose length is estimated from the series
    (`block_length`). The interval contains the middle 95 % of their statistics.

    Args:
        values: samples in chronological order.
        seed: random seed; the same values give the same intervals.

    Returns:
        None for fewer than ten values.
    """
    if len(values) < 10:
        return None
    series = np.asarray(values, np.float64)
    block = block_length(series)
    figures = [(each.mean(axis=1), np.median(each, axis=1)) for each in _draws(series, block, seed)]
    means, medians = map(np.concatenate, zip(*figures, strict=True))
    return Intervals(middle(means), middle(medians), block)


def resampled_quantiles(values: Sequence[float], share: float, *, seed: int = 0) -> NDArray[np.float64]:
    """Quantiles of 1,000 bootstrap series, drawn in blocks as by `block_bootstrap`.

    Args:
        values: at least ten samples, in chronological order.
        share: the quantile, such as 0.5 for the median.
        seed: random seed.
    """
    series = np.asarray(values, np.float64)
    draws = _draws(series, block_length(series), seed)
    return np.concatenate([np.quantile(each, share, axis=1) for each in draws])


def resampled_means(values: Sequence[float], *, block: int, seed: int = 0) -> NDArray[np.float64]:
    """Means of 1,000 bootstrap series drawn in blocks of a given length.

    Args:
        values: at least one sample, in chronological order.
        block: block length; must exceed the range of the correlation.
        seed: random seed.
    """
    series = np.asarray(values, np.float64)
    draws = _draws(series, max(1, min(block, len(series))), seed)
    return np.concatenate([each.mean(axis=1) for each in draws])


def middle(draws: NDArray[np.float64]) -> Interval:
    """Interval of the middle 95 % of bootstrap draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high))


def _draws(series: NDArray[np.float64], block: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """The drawn series in batches of shape (count, n)."""
    n, generator = len(series), np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // n)
    for drawn in range(0, _RESAMPLES, at_once):
        starts = generator.integers(0, n, (min(at_once, _RESAMPLES - drawn), math.ceil(n / block), 1))
        indices = ((starts + np.arange(block)) % n).reshape(len(starts), -1)[:, :n]
        yield series[indices]


def block_length(series: NDArray[np.float64]) -> int:
    """Block length for the circular bootstrap.

    D. N. Politis and H. White, "Automatic block-length selection for the dependent bootstrap", Econometric
    Reviews 23 (2004), corrected by Patton, Politis and White (28, 2009). The larger the contribution of
    correlated neighbors to the variance of the mean, the longer the block.

    Args:
        series: (n,) samples in chronological order, at least ten.

    Returns:
        1 for a constant series, independent values, or a variance of the mean estimated as 0 or less; at most
        a third of the series.
    """
    n = len(series)
    longest = math.ceil(math.sqrt(n)) + _QUIET
    covariances = _autocovariances(series, longest)
    if covariances[0] == 0:
        return 1
    reach = _reach(covariances / covariances[0], n)
    if reach == 0:
        return 1
    lags = np.arange(1, min(2 * reach, longest) + 1)
    window = np.minimum(1, 2 * (1 - lags / lags[-1]))  # flat top
    spread = 2 * float(np.sum(window * lags * covariances[lags]))
    variance = float(covariances[0] + 2 * np.sum(window * covariances[lags]))
    if variance <= 0:
        return 1
    length = float(1.5 * spread**2 / variance**2 * n) ** (1 / 3)
    return min(1 + int(length), math.ceil(3 * math.sqrt(n)), n // 3)


def _reach(correlations: NDArray[np.float64], n: int) -> int:
    """The last lag before correlations stay insignificant for a while, or the longest if they never do."""
    significant = np.abs(correlations[1:]) >= 2 * math.sqrt(math.log10(n) / n)
    for lag in range(len(significant) - _QUIET + 1):
        if not significant[lag : lag + _QUIET].any():
            return lag
    return len(significant)


def _autocovariances(series: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    centred = series - series.mean()
    n = len(series)
    found = [float(centred[: n - lag] @ centred[lag:]) / n for lag in range(longest + 1)]
    return np.asarray(found)
