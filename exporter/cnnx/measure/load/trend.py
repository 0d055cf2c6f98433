"""Trend of a figure over a long measurement: a robust slope, and its beginning against its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.measure.bootstrap import middle
from cnnx.schema import Quantity
from cnnx.stats import Interval

_DRAWS = 1000
# Fewer values have no interval. More are grouped for the slope, as their pairs grow with the square.
_LEAST, _MOST = 10, 240
# Largest correlation of neighbors, and the ratio of a normal distribution's deviations.
_CLOSEST, _NORMAL = 0.97, 1.4826

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """Trend of a positive figure. Intervals are at 95 % confidence.

    Attributes:
        change: how far the line of the trend moves from the beginning to the end, relative to the median.
        interval: interval of `change`.
        first: median of the beginning.
        last: median of the end.
        ends: `last` over `first`, minus 1.
        ends_interval: interval of `ends`.
    """

    change: float
    interval: Interval
    first: Quantity
    last: Quantity
    ends: float
    ends_interval: Interval


def trend_of(seconds: Sequence[float], values: Sequence[float], *, ends_s: float) -> Trend | None:
    """The trend of a series, by the Theil-Sen estimator: the median of the slopes of all pairs.

    A few disturbed values do not move it (P. K. Sen, J. Am. Stat. Assoc. 63, 1968, 1379-1389); nor does a
    step within the first or last 29 % of the time, which the comparison of beginning and end shows. Sen's
    interval assumes independent errors, but successive values of a warm device are alike: intervals are those
    of 1,000 simulated series (`_noise`). tools/check/soak_drift.py shows how often they hold the truth.

    Args:
        seconds: time of each value, increasing.
        values: positive values.
        ends_s: length of the beginning and of the end that are compared; at most a third of the time counts.

    Returns:
        None for fewer than ten values, or a median of 0.
    """
    if len(values) < _LEAST or not (level := float(np.median(values))) > 0:
        return None
    times, series = np.asarray(seconds, np.float64), np.asarray(values, np.float64)
    moments = _grouped(times[None])[0]
    slope = float(_slopes(moments, _grouped(series[None]))[0])
    noise = _noise(series, np.random.default_rng(0))
    scale = float(times[-1] - times[0]) / level
    found = middle(slope + _slopes(moments, _grouped(noise)))
    span = min(ends_s, (times[-1] - times[0]) / 3)
    begin, end = times < times[0] + span, times > times[-1] - span
    first, last = float(np.median(series[begin])), float(np.median(series[end]))
    apart = (np.median(noise[:, end], axis=1) - np.median(noise[:, begin], axis=1)) / first
    return Trend(
        slope * scale,
        Interval(found.low * scale, found.high * scale),
        first,
        last,
        last / first - 1,
        middle(last / first - 1 + apart),
    )


def _grouped(rows: _Array) -> _Array:
    """At most `_MOST` values a row: medians of neighbors."""
    count = rows.shape[1]
    each = -(-count // _MOST)
    if each == 1:
        return rows
    starts = range(0, count, each)
    return np.stack([np.median(rows[:, start : start + each], axis=1) for start in starts], axis=1)


def _slopes(times: _Array, rows: _Array) -> _Array:
    """Median slope over all pairs, for each row of (rows, n) values."""
    later, earlier = np.tril_indices(len(times), -1)
    spans = times[later] - times[earlier]
    return np.asarray([np.median((row[later] - row[earlier]) / spans) for row in rows])


def _noise(series: _Array, generator: np.random.Generator) -> _Array:
    """Series (draws, n) of a first-order autoregression, as noisy and as correlated as this one.

    Both are estimated from the differences of values one and two steps apart: neither a drift nor a step, as
    when throttling begins, is noise. The differences' median absolute deviations leave out outliers.
    """
    one, two = (_variance(series[steps:] - series[:-steps]) for steps in (1, 2))
    near = min(_CLOSEST, max(0.0, two / one - 1)) if one > 0 else 0.0
    deviation = math.sqrt(one / (2 * (1 - near)))
    found: _Array = generator.normal(size=(_DRAWS, len(series))) * deviation
    found[:, 1:] *= math.sqrt(1 - near**2)
    for step in range(1, len(series)):
        found[:, step] += near * found[:, step - 1]
    return found


def _variance(values: _Array) -> float:
    """Variance without outliers: beyond three standard deviations by the median absolute deviation."""
    centred = values - np.median(values)
    limit = 3 * _NORMAL * float(np.median(np.abs(centred)))
    return float(np.mean(np.clip(centred, -limit, limit) ** 2))
