"""Ranges compared with a direct implementation of the published methods on the raw values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnnx.errors import UsageError
from cnnx.quant.histogram import TensorStatistics
from cnnx.quant.methods import METHODS, check_method, divergences

Floats = NDArray[np.float32]


def plain_divergence(counts: NDArray[np.float64], kept: int) -> float:
    """Return the KL divergence of one range, as in Migacz's slides."""
    inside = counts[:kept]
    p = inside.copy()
    p[np.flatnonzero(inside)[-1]] += counts[kept:].sum()
    level = np.arange(kept) * 128 // kept
    mass = np.bincount(level, inside, 128)
    filled = np.bincount(level, inside > 0, 128)
    q = np.where(inside > 0, mass[level] / np.maximum(filled[level], 1), 0)
    p, q = p / p.sum(), q / q.sum()
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


def plain_entropy(values: Floats) -> float:
    """Apply the method to 2048 linear bins of the raw values."""
    size = np.abs(values[values != 0]).astype(np.float64)
    counts = np.histogram(size, 2048, (0, size.max()))[0].astype(np.float64)
    counts[0] = 0
    found = [plain_divergence(counts, kept) for kept in range(128, 2049)]
    return float((128 + np.argmin(found) + 0.5) / 2048 * size.max())


def amax(values: Floats, method: str = "entropy") -> float:
    statistics = TensorStatistics()
    statistics.update(values)
    return METHODS[method](statistics)


def samples() -> dict[str, Floats]:
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal(500_000).astype(np.float32)
    return {
        "gaussian": gaussian,
        "laplace": rng.laplace(size=500_000).astype(np.float32),
        "relu": np.maximum(gaussian, 0),
        "outlier": np.append(gaussian, np.float32(40)),
    }


def test_a_range_in_which_nothing_is_has_no_divergence() -> None:
    counts = np.zeros(300)
    counts[[150, 299]] = 3, 1
    found = divergences(counts)
    assert len(found) == 173 and np.isinf(found[:23]).all() and np.isfinite(found[23:]).all()
    assert found[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", samples())
def test_entropy_is_the_published_scheme(name: str) -> None:
    values = samples()[name]
    assert amax(values) == pytest.approx(plain_entropy(values), rel=0.05)


def test_the_entropy_range_ends_in_the_middle_of_its_last_bin_and_not_beyond_the_maximum() -> None:
    values = samples()["outlier"]  # of 2048 bins to 40 each holds whole bins of the statistics
    assert amax(values) == pytest.approx(plain_entropy(values), rel=1e-6)
    level = np.random.default_rng(0).uniform(0, 1, 100_000).astype(np.float32)
    assert plain_entropy(level) > level.max() == amax(level)


@pytest.mark.parametrize(("far", "clipped"), [(0.045, True), (0.055, False)])
def test_a_range_that_clips_more_than_one_in_twenty_is_no_candidate(far: float, clipped: bool) -> None:
    """All small values are in one bin, which the narrowest range, a sixteenth, represents without loss."""
    count = round(10_000 * far)
    values = np.append(np.full(10_000 - count, 0.03), np.linspace(0.2, 1, count)).astype(np.float32)
    assert amax(values) == pytest.approx(128.5 / 2048) if clipped else np.mean(values > amax(values)) <= 0.05


@pytest.mark.parametrize("outlier", [40, 100])
def test_one_outlier_does_not_set_the_range(outlier: float) -> None:
    # 100 is so far out that the body ends below the narrowest range, whose last bin is empty.
    values = np.append(samples()["gaussian"], np.float32(outlier))
    assert 4 <= amax(values) <= 6.5
    assert amax(values, "max") == outlier


def test_values_far_from_zero_are_not_clipped_away() -> None:
    """A few small values in a narrow range fill a single bin, so that range has no divergence."""
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(1, 0.2, 5000), [0.05] * 3).astype(np.float32)
    assert np.mean(values > amax(values)) <= 0.05


def test_more_than_half_zeros_change_nothing() -> None:
    values = samples()["relu"]
    assert amax(np.append(values, np.zeros(2_000_000, np.float32))) == amax(values)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.999))
def test_all_divergences_at_once_are_each_one_alone(seed: int, empty: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 1000, 700) * (rng.random(700) > empty) * 1.0
    counts[5] = 1
    alone = [plain_divergence(counts, kept) for kept in range(128, 701)]
    assert divergences(counts) == pytest.approx(alone, abs=1e-9)


def test_tensors_that_leave_no_choice() -> None:
    assert amax(np.zeros(10, np.float32)) == amax(np.zeros(10, np.float32), "max") == 0
    assert amax(np.full(10, -3, np.float32)) == 3
    assert amax(np.array([np.nan, np.inf, 2, -np.inf], np.float32)) == 2
    assert amax(np.empty((0, 4), np.float32)) == 0
    assert amax(np.append(np.full(100, 1e-6, np.float32), np.float32(8))) == 8


@settings(max_examples=25, deadline=None)
@given(st.integers(-12, 10), st.integers(0, 2**32 - 1))
def test_a_power_of_two_scales_the_range(exponent: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(2000).astype(np.float32)
    assert amax(values * np.float32(2.0**exponent)) == amax(values) * 2.0**exponent


SAMPLE = np.random.default_rng(3).standard_normal(200_000).astype(np.float32)


@pytest.mark.parametrize("share", ["99.9", "99.99", "99.999"])
def test_a_percentile_is_numpys(share: str) -> None:
    values = np.concatenate([SAMPLE, np.zeros(100_000, np.float32)])
    found = amax(values, f"percentile-{share}")
    assert found == pytest.approx(np.percentile(np.abs(values), float(share)), rel=2e-3)


def test_a_percentile_of_a_nearly_dead_tensor_is_its_maximum() -> None:
    assert amax(np.append(np.zeros(100_000, np.float32), np.float32(3)), "percentile-99.99") == 3


def test_no_other_range_has_less_squared_error() -> None:
    def error(values: NDArray[np.float32], limit: float) -> float:
        step = limit / 127
        return float(np.mean((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2))

    values = np.append(SAMPLE, np.float32(20))
    found = amax(values, "mse")
    assert 3 < found < 19  # the outlier is clipped, at a cost
    best = min(error(values, limit) for limit in np.linspace(2.5, 20, 700))
    assert error(values, found) <= 1.001 * best


@pytest.mark.parametrize(("outlier", "off"), [(160, 0.0028), (880, 0.006)])
def test_whole_numbers_get_a_range_of_127(outlier: int, off: float) -> None:
    """Steps of 1 represent the values, so a single far value is clipped. The search resolution is 0.28 %."""
    values = np.append(np.repeat(np.arange(1, 9), 100_000), [outlier]).astype(np.float32)
    assert amax(values, "mse") == pytest.approx(127, rel=off)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [1e-7, 1.0, 3.3, 6e4])
def test_a_constant_tensor_keeps_its_value(method: str, value: float) -> None:
    values = np.full(1000, value, np.float32)
    assert amax(values, method) == values[0]


def test_names() -> None:
    for name in METHODS:
        check_method(name)
    with pytest.raises(UsageError) as refusal:
        check_method("entropie")
    assert refusal.value.hint == "did you mean 'entropy'?"
    with pytest.raises(UsageError) as refusal:
        check_method("quantile")
    assert "entropy, max" in str(refusal.value.hint)
