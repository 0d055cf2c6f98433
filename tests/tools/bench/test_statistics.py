"""The simulation behind docs/statistics.md, at few repeats."""

import numpy as np
import pytest

from tools.bench import statistics as simulated


def test_wilson_covers_what_its_exact_sum_says():
    """By hand: for n = 1 and p = 0.5, both counts give an interval that holds 0.5."""
    assert simulated.wilson_coverage(0.5, 1) == pytest.approx(1.0)
    assert 0.93 < simulated.wilson_coverage(0.99, 800) < 0.97


@pytest.mark.parametrize("correlation", simulated.CORRELATIONS)
def test_a_series_has_the_median_noise_and_memory_it_is_asked_for(correlation):
    values = np.log(simulated.series(np.random.default_rng(1), 20_000, correlation) / 1e6)
    assert np.median(values) == pytest.approx(0, abs=0.003)
    assert values.std() == pytest.approx(simulated.NOISE, rel=0.1)
    assert np.corrcoef(values[1:], values[:-1])[0, 1] == pytest.approx(correlation, abs=0.05)


def test_a_planted_regression_is_found_and_rarely_an_absent_one():
    """At most 5 % of the repeats may alarm without a change, as docs/statistics.md shows; 10 % of 40 here."""

    def slower(ratio):
        return simulated.share(lambda each: simulated.in_turns(each, ratio, 50, 0.5).low > 1, 40, 11)

    assert slower(1.01) >= 0.95 and slower(1.0) <= 0.1
    lost, same = simulated.cells(0.76, 0.0065, 0.0035), simulated.cells(0.76, 0.005, 0.005)

    def worse(true):
        return simulated.share(
            lambda each: simulated.counts(each, 20_000, true).margin(1.0).high < 0, 400, 12
        )

    assert worse(lost) >= 0.95 and worse(same) <= 0.05
