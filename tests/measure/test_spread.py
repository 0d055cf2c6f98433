"""The median and the high percentiles of a series are judged apart."""

from __future__ import annotations

import numpy as np
import pytest

from cnnx.measure import Breakdown, Latency, judge_validity
from cnnx.measure.samples import variation
from cnnx.measure.spread import drift, interrupted, judge_percentile, robust_variation
from cnnx.runtimes import RunTimes

US = 1000


def noisy(runs, *, sigma=0.003, seed=0):
    return (50_000 * (1 + sigma * np.random.default_rng(seed).normal(size=runs))).astype(int)


def reasons(samples, *percentiles):
    return [judge_percentile(samples.tolist(), each).reason for each in percentiles]


def test_an_interrupted_p99_is_invalid_alone():
    """p50 is 0.05 ms and p99 33 ms: what waits 33 ms for a display is not the network."""
    samples = noisy(2000)
    samples[::67] = 33_000_000
    median, tail = reasons(samples, 50, 99)
    assert median == "" and tail == "it is 660.0 times the median: those runs were interrupted"


@pytest.mark.parametrize(
    ("change", "median", "tail"),
    [
        (lambda times: times, "", ""),
        # One in two hundred runs of 0.05 ms takes 0.09 ms: p99 is steady, and p99.9 would not be.
        (lambda times: np.where(np.arange(2000) % 200 == 7, 90 * US, times), "", ""),
        # One in a hundred and a little: p99 is the one or the other, by chance.
        (lambda times: np.where(np.arange(2000) % 98 == 7, 90 * US, times), "", "not repeatable to 5%"),
        (lambda times: times * np.linspace(1, 1.06, 2000), "moved by +4", ""),
        (lambda times: times * np.where(np.arange(2000) % 2, 1.12, 1), "vary by 3.7%", ""),
    ],
)
def test_each_percentile_by_its_own_rule(change, median, tail):
    found = reasons(change(noisy(2000)).astype(int), 50, 99)
    for words, reason in zip((median, tail), found, strict=True):
        assert words in reason and bool(words) == bool(reason)


def test_a_percentile_needs_the_samples_that_loadgen_asks_for():
    assert "661 samples are too few: 662 are needed" in reasons(noisy(661), 99)
    assert reasons(noisy(662), 99) == [""]


def test_the_spread_of_a_normal_series_is_its_coefficient_of_variation():
    samples = noisy(20_000, sigma=0.02).tolist()
    assert robust_variation(samples) == pytest.approx(variation(samples), rel=0.03)
    assert drift(samples) == pytest.approx(0, abs=0.002)
    assert (robust_variation([5]), drift([5] * 29), robust_variation([0, 0])) == (None, None, None)
    assert drift([1] * 15 + [2] * 15) == 1 and drift([0] * 30) is None and robust_variation([1, 1]) == 0
    assert drift([4] * 10 + [9] * 10 + [3] * 10) == -0.25
    assert drift([4] * 4 + [6] * 22 + [7] * 4) == 0, "of ten runs each, most are alike"
    assert interrupted([2, 2, 4, 5]) == 0 and interrupted([2, 2, 2, 4, 5]) == 1


def test_a_measurement_with_hiccups_is_valid_but_for_its_p99():
    runs = [RunTimes(US, US, int(time), US) for time in noisy(2000)]
    runs[::67] = [RunTimes(US, US, 33_000_000, US)] * len(runs[::67])
    parts = Breakdown.of(runs)
    verdict = judge_validity(Latency(parts.latency_ns, 1, 20, "steady", True, parts=parts), on_gpu=True)
    assert verdict.valid and [found.rule for found in verdict.remarks] == ["outliers"]
    assert "30 of 2000 runs took more than twice the median, the longest 33 ms" in verdict.remarks[0].reason
    assert {each.percentile: each.valid for each in verdict.percentiles} == {50: True, 90: True, 99: False}
