import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cnnx.stats import Interval, Paired, Verdict, difference, images_to_decide, wilson, worst

rates = st.floats(0, 1)
counts = st.integers(1, 100_000)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, Table I, method 3 (Wilson's score).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombes_table(successes, n, low, high):
    interval = wilson(successes / n, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@given(rates, counts)
def test_wilson_holds_the_rate_and_narrows_with_more_images(rate, n):
    interval, wider = wilson(rate, 4 * n), wilson(rate, n)
    assert 0 <= interval.low <= rate + 1e-12 and rate - 1e-12 <= interval.high <= 1
    assert interval.high - interval.low <= wider.high - wider.low + 1e-12


def test_a_perfect_score_needs_765_images_to_clear_995_permille():
    assert wilson(1.0, 764).against(0.995) is Verdict.INCONCLUSIVE
    assert wilson(1.0, 765).against(0.995) is Verdict.PASSED
    assert images_to_decide(1.0, 0.995) == 765


@given(rates, st.floats(0.01, 0.99))
def test_images_to_decide_is_the_first_number_that_does(rate, threshold):
    n = images_to_decide(rate, threshold)
    if n is None:
        assert math.isclose(rate, threshold, abs_tol=1e-3)
    else:
        assert wilson(rate, n).against(threshold) is not Verdict.INCONCLUSIVE
        assert n == 1 or wilson(rate, n - 1).against(threshold) is Verdict.INCONCLUSIVE


def test_a_rate_at_its_threshold_is_never_decided_and_without_images_nothing_is_known():
    assert images_to_decide(0.9, 0.9) is None
    assert images_to_decide(0.9, 0.901) is not None
    assert wilson(0.3, 0) == Interval(0.0, 1.0)
    assert images_to_decide(0.5, 0.0) == images_to_decide(0.5, 0.05) == 1
    assert images_to_decide(0.9, 0.9001) is None, "ten million are not enough"
    assert images_to_decide(0.9, 0.9002) == pytest.approx(8_628_000, rel=1e-3)


def test_the_verdict_has_three_ways_and_the_bounds_belong_to_it():
    assert Interval(0.95, 0.99).against(0.95) is Verdict.PASSED
    assert Interval(0.90, 0.95).against(0.95) is Verdict.INCONCLUSIVE
    assert Interval(0.90, 0.949).against(0.95) is Verdict.FAILED


def test_one_failure_outweighs_what_is_open():
    assert worst([Verdict.PASSED, Verdict.INCONCLUSIVE, Verdict.FAILED]) is Verdict.FAILED
    assert worst([Verdict.PASSED, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.PASSED]) is Verdict.PASSED
    assert worst([Verdict.NOT_JUDGED, Verdict.INCONCLUSIVE, Verdict.PASSED]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.NOT_JUDGED, Verdict.PASSED]) is Verdict.NOT_JUDGED
    assert worst([Verdict.NOT_JUDGED, Verdict.FAILED]) is Verdict.FAILED
    assert [v.exit_code for v in Verdict] == [0, 1, 6, 6]


@given(*[st.integers(0, 500)] * 4)
def test_mcnemar_is_symmetric_and_knows_nothing_of_agreement(both, b, c, neither):
    p = Paired(both, b, c, neither).mcnemar()
    assert 0 < p <= 1
    assert p == Paired(neither, c, b, both).mcnemar()


@pytest.mark.parametrize("field", ["both", "only_original", "only_engine", "neither"])
def test_counts_below_zero_are_refused(field):
    counts = dict.fromkeys(("both", "only_original", "only_engine", "neither"), 0)
    assert Paired(**counts).n == 0
    with pytest.raises(ValueError, match=f"{field} is -1"):
        Paired(**counts | {field: -1})


def test_mcnemar_is_the_exact_sign_test():
    # 2 * P(X <= 1) for X ~ Binomial(10, 1/2) = 2 * 11 / 1024
    assert Paired(100, 9, 1, 5).mcnemar() == pytest.approx(22 / 1024)


@given(*[st.integers(0, 300)] * 4, st.floats(0.9, 1))
def test_the_accuracy_margin_is_a_normal_interval_with_half_an_image_more_in_each_cell(b, o, e, n, ratio):
    values, weights = [1 - ratio, -ratio, 1, 0], [b + 0.5, o + 0.5, e + 0.5, n + 0.5]
    mean = np.average(values, weights=weights)
    variance = np.average((values - mean) ** 2, weights=weights)
    half = 1.959964 * math.sqrt(variance / sum(weights))
    margin = Paired(b, o, e, n).margin(ratio)
    assert (margin.low, margin.high) == pytest.approx((mean - half, mean + half), abs=1e-6)


def test_the_accuracy_margin_has_a_width_even_when_nobody_disagrees():
    margin = Paired(both=780, only_original=0, only_engine=0, neither=20).margin(0.99)
    assert margin.low < margin.high
    assert margin.against(0) is Verdict.PASSED
    assert Paired(600, 180, 0, 20).margin(0.99).against(0) is Verdict.FAILED


@given(st.integers(1, 2000), st.data())
def test_wilson_is_scipys(n, data):
    count = data.draw(st.integers(0, n))
    expected = scipy_stats.binomtest(count, n).proportion_ci(method="wilson")
    found = wilson(count / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(*[st.integers(0, 300)] * 2)
def test_mcnemar_is_scipys_binomial_test_of_the_images_that_differ(b, c):
    expected = scipy_stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert Paired(5, b, c, 5).mcnemar() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, Table II, method 10.
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_the_difference_of_two_rates_agrees_with_newcombes_table(first, second, low, high):
    (a, m), (b, n) = first, second
    found = difference(a / m, wilson(a / m, m), b / n, wilson(b / n, n))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
