"""Intervals of series whose neighbours resemble each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from cnnx.agreement.logits import mean_interval
from cnnx.measure.bootstrap import (
    block_bootstrap,
    block_length,
    middle,
    resampled_means,
    resampled_quantiles,
)


def remembering(noise: np.ndarray, coefficient: float = 0.8) -> np.ndarray:
    """AR(1) from 0. At 0.8, the mean's standard error is 3 times that of independent values."""
    values = [0.0]
    for shock in noise:
        values.append(coefficient * values[-1] + shock)
    return np.array(values)


def test_the_interval_covers_the_mean_of_a_series_with_memory_where_independence_would_not():
    random, covered, narrow = np.random.default_rng(0), 0, 0
    for _ in range(60):
        series = remembering(random.normal(size=600))[101:]
        found = block_bootstrap([*series])
        covered += found.mean.low <= 0 <= found.mean.high
        narrow += abs(series.mean()) <= 1.96 * series.std() / np.sqrt(len(series))
    assert found.block > 5 and covered >= 48 and narrow < 45
    alone = block_bootstrap([*random.normal(size=600)])
    assert alone.block <= 4 and alone.median.low < alone.median.high
    constant = block_bootstrap([5.0] * 10)
    assert constant.block == 1 and (constant.mean.low, constant.median.high) == (5.0, 5.0)
    assert block_bootstrap([1.0] * 9) is None


def test_the_length_of_a_block_is_that_of_the_paper_for_a_series_whose_covariances_are_known():
    """AR(1) with coefficient r, n values: (1.5 n (2r / (1 - r^2))^2)^(1/3), 84 here."""
    random = np.random.default_rng(1)
    found = [block_length(remembering(random.normal(size=20_000))) for _ in range(5)]
    assert np.mean(found) == pytest.approx((1.5 * 20_000 * (2 * 0.8 / (1 - 0.8**2)) ** 2) ** (1 / 3), rel=0.1)


@pytest.mark.parametrize(
    ("n", "coefficient", "expected"),
    [
        (20, 0.5, 2.169),
        (30, -0.4, 10.000),  # the limit n / 3
        (30, 0.95, 5.448),
        (60, 0.8, 4.686),
        (90, -0.8, 29.000),  # the limit 3 sqrt(n)
        (100, 0.3, 2.710),
        (200, -0.4, 8.044),
        (200, 0.8, 11.349),
        (400, 0.5, 5.164),
        (400, 0.95, 30.467),
        (1000, -0.4, 9.319),
        (1000, 0.8, 31.169),
        (3000, 0.95, 105.666),
        (10000, 0.3, 16.982),
        (10000, 0.8, 67.554),
    ],
)
def test_the_length_of_a_block_is_that_of_the_package_arch(n, coefficient, expected):
    """Figures of arch 8.0.0 (arch.bootstrap.optimal_block_length, circular) with one change.

    arch sets the bandwidth to twice the first of five insignificant lags. In the paper, and here,
    it is twice the lag before them, so arch ran with `opt_m = i - kn - 1` for these figures.
    """
    assert block_length(remembering(np.random.default_rng(n).normal(size=n - 1), coefficient)) == math.ceil(
        expected
    )


def test_a_block_is_one_value_where_the_mean_seems_to_have_no_variance():
    """Differences of independent values: their sum has the variance of two values, whatever their number."""
    assert block_length(np.diff(np.random.default_rng(58).normal(size=59))) == 1


def test_means_drawn_in_blocks_scatter_as_the_series_remembers():
    values = remembering(np.random.default_rng(5).normal(size=599))
    alone, together = (resampled_means(values, block=block) for block in (1, 30))
    assert 2 < together.std() / alone.std() < 4
    assert together.mean() == pytest.approx(values.mean(), abs=0.1)
    # Independent values: the interval is the textbook one.
    interval = middle(alone)
    half = 1.96 * values.std() / math.sqrt(600)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.15)


@pytest.mark.parametrize("place", [0, 5, -1])
def test_every_value_is_drawn_as_often_as_any_other_at_the_ends_too(place):
    """Blocks run on from the last value to the first."""
    values = np.zeros(90)
    values[place] = 90
    means = resampled_means(values, block=20)
    assert means.mean() == pytest.approx(1, abs=5 * means.std() / math.sqrt(len(means)))


@pytest.mark.parametrize("block", [1, 3, 7, 10, 20])
def test_every_drawn_series_is_as_long_as_the_given_one(block):
    sums = 10 * resampled_means([2.0**k for k in range(10)], block=block)
    np.testing.assert_allclose(sums, np.rint(sums), rtol=1e-9)


def test_means_of_one_value_or_equal_ones_have_no_width():
    assert set(resampled_means([4.0], block=5)) == {4.0}
    assert set(resampled_means([2.0] * 7, block=3)) == {2.0}
    np.testing.assert_array_equal(*(resampled_means([1.0, 2.0, 5.0], block=2) for _ in range(2)))


def scipys(values: np.ndarray, statistic: object, method: str) -> tuple[float, float]:
    found = scipy_stats.bootstrap(
        (values,), statistic, n_resamples=4000, method=method, random_state=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def test_without_memory_it_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(5).normal(10, 1, 500)
    found = block_bootstrap([*values])
    assert found is not None and found.block == 1
    width = found.mean.high - found.mean.low
    for interval, statistic in ((found.mean, np.mean), (found.median, np.median)):
        assert (interval.low, interval.high) == pytest.approx(
            scipys(values, statistic, "percentile"), abs=0.1 * width
        )
    tail = middle(resampled_quantiles([*values], 0.9))
    expected = scipys(values, lambda each, axis: np.quantile(each, 0.9, axis=axis), "percentile")
    assert (tail.low, tail.high) == pytest.approx(expected, abs=0.2 * width)


def test_the_mean_of_skewed_values_has_scipys_interval_that_corrects_skewness() -> None:
    values = np.random.default_rng(6).exponential(1, 400)
    found = mean_interval(values)
    expected = scipys(values, np.mean, "BCa")
    assert (found.low, found.high) == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))
    assert found.high - values.mean() > values.mean() - found.low
