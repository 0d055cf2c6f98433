"""Trends of made-up series, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from cnnx.measure.load.trend import trend_of


@pytest.mark.parametrize("drift", [0.0, 0.03])
def test_the_interval_of_a_trend_holds_the_truth_and_outliers_do_not_move_it(drift):
    times, held, found = np.arange(30) * 5.0, 0, 0
    for seed in range(20):
        noise = np.random.default_rng(seed)
        values = 1 + drift * times / times[-1] + noise.normal(size=30) * 0.005
        values[noise.random(30) < 0.05] *= 1.3
        trend = trend_of(times.tolist(), values.tolist(), ends_s=60.0)
        held += trend.interval.low <= drift / (1 + drift / 2) <= trend.interval.high
        found += trend.interval.low > 0
    assert held >= 17 and (found >= 17 if drift else found <= 3)


def test_few_values_have_no_trend_and_equal_values_a_flat_one():
    assert (
        trend_of([*range(9)], [1.0] * 9, ends_s=1) is None
        and trend_of([*range(12)], [0.0] * 12, ends_s=1) is None
    )
    flat = trend_of([*range(12)], [2.0] * 12, ends_s=3)
    assert (flat.change, flat.interval.low, flat.interval.high, flat.first, flat.ends) == (0, 0, 0, 2, 0)
    step = trend_of([*range(400)], [1.0] * 200 + [2.0] * 200, ends_s=60)
    assert step.ends == step.ends_interval.low == 1 and step.interval.low > 0


def test_a_line_without_noise_moves_by_its_rise_over_the_median():
    """Values at uneven times; the median of the values is not that of the line's middle."""
    times = np.cumsum(np.random.default_rng(0).uniform(1, 9, 24))
    values = 2 + 0.5 * (times - times[0]) / (times[-1] - times[0])
    trend = trend_of(times.tolist(), values.tolist(), ends_s=1000)
    third = (times[-1] - times[0]) / 3
    first, last = values[times < times[0] + third], values[times > times[-1] - third]
    assert trend.change == pytest.approx(0.5 / np.median(values))
    assert (trend.first, trend.last) == pytest.approx((np.median(first), np.median(last)))
    assert trend.ends == pytest.approx(trend.last / trend.first - 1)
    short = trend_of(times.tolist(), values.tolist(), ends_s=float(times[2] - times[0]))
    assert short.first == pytest.approx(values[:2].mean())


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_interval_is_as_wide_as_the_noise_and_its_correlation_make_it(correlation):
    """The typical width, against the spread of the ends over as many series."""
    widths, ends = [], []
    for seed in range(60):
        noise = np.random.default_rng(seed)
        state, values = noise.normal() * 0.01, []
        for shock in noise.normal(size=40) * 0.01 * np.sqrt(1 - correlation**2):
            state = correlation * state + shock
            values.append(1 + state)
        trend = trend_of([*range(40)], values, ends_s=8)
        widths.append(trend.ends_interval.high - trend.ends_interval.low)
        ends.append(trend.ends)
    assert np.median(widths) == pytest.approx(2 * 1.96 * np.std(ends), rel=0.2)
