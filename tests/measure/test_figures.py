"""The figures of a series are those of its parts."""

import random

import pytest

from cnnx.measure.bootstrap import block_bootstrap
from cnnx.measure.figures import figures_of
from cnnx.measure.samples import bound_of, variation


def test_figures_of_a_series():
    samples = random.Random(0).sample(range(1, 1001), 1000)
    found, bootstrap = figures_of(samples, percentile=95), block_bootstrap(samples)
    assert (found.p50_ns, found.p90_ns, found.p99_ns) == (500, 900, 990)
    assert (found.percentile, found.percentile_ns, found.mean_ns) == (95, 950, 500.5)
    assert found.percentile_bound_ns == bound_of(samples, 0.95) > 950
    assert found.coefficient_of_variation == variation(samples)
    assert (found.p50_interval, found.mean_interval) == (bootstrap.median, bootstrap.mean)
    assert found.block == bootstrap.block and found.as_dict()["p50_interval"]["low"] < 500
    assert figures_of(samples).percentile_ns == 990


def test_figures_of_too_few_samples_are_unknown():
    found = figures_of([3])
    unknown = (found.p50_ns, found.p90_ns, found.p99_ns, found.percentile_ns, found.percentile_bound_ns)
    assert {*unknown, found.p50_interval, found.mean_interval, found.block} == {None}
    assert found.mean_ns == 3 and found.coefficient_of_variation is None
    assert figures_of(range(1, 12)).p50_ns == 6 and figures_of(range(1, 11)).p50_ns is None
    assert figures_of([5] * 20).mean_interval.high == pytest.approx(5)
