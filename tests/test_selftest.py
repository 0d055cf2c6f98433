"""The judgement of the self-test, on logits alone."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnnx.agreement import divergences
from cnnx.errors import BundleError
from cnnx.record import Subject
from cnnx.selftest import LIMITS, self_test, self_test_from_dict
from cnnx.stats import Verdict

SUBJECT = Subject("net", "engine", "ab" * 32, "int8", "tensorrt 10.3", "Orin", "trt-1")
NOISE = {"fp32": 1e-6, "fp16": 1e-4, "int8": 3e-2}
"""Of the graph against the original, relative to its logits: what each precision costs."""
precisions = st.sampled_from(sorted(LIMITS))


def logits(n=200, classes=20, *, seed=0, precision="int8"):
    """An original, and a graph that differs from it as its precision does."""
    random = np.random.default_rng(seed)
    original = (3 * random.standard_normal((n, classes))).astype(np.float32)
    graph = original + 3 * NOISE[precision] * random.standard_normal((n, classes))
    return original, graph.astype(np.float32), random


def judged(graph, engine, original, precision="int8"):
    ids = tuple(f"{i}.png" for i in range(len(graph)))
    return self_test(
        graph, engine, original=original, precision=precision, subject=SUBJECT, ids=ids, image_set="made up"
    )


@given(precisions, st.integers(1, 300), st.sampled_from([2, 10, 30, 1000]), st.integers(0, 99))
@example("int8", 7, 10, 0)
@example("int8", 8, 10, 0)
def test_a_graph_passes_against_itself_unless_too_few_images_could_tell(precision, n, classes, seed):
    """Of 1,000 classes, too: a network of 224 x 224 pixels has 216 images at most, and passes."""
    original, graph, _ = logits(n, classes, seed=seed, precision=precision)
    tested = judged(graph, graph, original, precision)
    assert tested.verdict is (Verdict.PASSED if n >= 8 else Verdict.INCONCLUSIVE)
    assert all(check.margin >= 0 for check in tested.checks) and tested.images == n
    assert len({check.name for check in tested.checks}) == len(tested.checks)


@given(st.integers(0, 199))
def test_an_engine_that_rounds_otherwise_passes(seed):
    """Rounding again, as independent of the graph's as it can be."""
    original, graph, random = logits(seed=seed)
    engine = original + (3 * NOISE["int8"] * random.standard_normal(graph.shape)).astype(np.float32)
    assert judged(graph, engine, original).verdict is Verdict.PASSED


@given(st.integers(0, 99), st.integers(0, 199))
def test_near_ties_and_a_few_odd_images_fail_nobody(seed, image):
    """The first class of an image may change, and 2 % of the images may be far off: those are not a fault."""
    original, graph, _ = logits(seed=seed)
    engine = graph.copy()
    first, second = np.argsort(-graph[image])[:2]
    graph[image, second] = graph[image, first] - 1e-4
    engine[image] = graph[image]
    engine[image, [first, second]] = graph[image, [second, first]]
    assert engine[image].argmax() != graph[image].argmax()
    assert judged(graph, engine, original).verdict is Verdict.PASSED
    engine[:4] = -graph[:4]
    assert judged(graph, engine, original).verdict is Verdict.PASSED


@given(precisions, st.integers(0, 99), st.integers(5, 200))
def test_a_fault_that_hits_some_images_alone_is_caught(precision, seed, hit):
    original, graph, random = logits(seed=seed, precision=precision)
    engine = graph.copy()
    places = random.permutation(len(graph))[:hit]
    engine[places] = graph[(places + 1) % len(graph)]
    tested = judged(graph, engine, original, precision)
    assert tested.verdict is Verdict.FAILED
    assert {name for name, _ in tested.worst_images} <= {f"{place}.png" for place in places}


@given(precisions, st.integers(0, 99), st.floats(1.0, 1e6))
def test_more_error_never_looks_better(precision, seed, factor):
    original, graph, random = logits(seed=seed, precision=precision)
    error = (NOISE[precision] * random.standard_normal(graph.shape)).astype(np.float32)
    less, more = (judged(graph, graph + scale * error, original, precision) for scale in (1.0, factor))
    for before, after in zip(less.checks[:3], more.checks[:3], strict=True):
        assert after.margin <= before.margin + 0.1  # FP32's rounding of the sum


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_an_engine_of_a_higher_precision_is_told_by_what_it_has_lost(precision):
    original, graph, _ = logits(precision=precision)
    assert judged(graph, original, original, precision).verdict is Verdict.FAILED
    # With too few images to tell it is left open, and what is far off fails all the same.
    assert judged(graph[:50], original[:50], original[:50], precision).verdict is Verdict.INCONCLUSIVE
    assert judged(graph[:50], -original[:50], original[:50], precision).verdict is Verdict.FAILED


def test_an_error_that_points_one_way_is_caught_below_the_noise():
    original, graph, _ = logits()
    engine = graph + np.float32(0.5 * 3 * NOISE["int8"])
    tested = judged(graph, engine, original)
    assert {check.name for check in tested.checks if check.margin < 0} == {"signal over systematic error"}
    assert tested.verdict is Verdict.FAILED


@given(precisions, st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 199))
def test_one_logit_that_is_not_finite_fails_the_whole(precision, value, image):
    original, graph, _ = logits(precision=precision)
    engine = graph.copy()
    engine[image, 3] = value
    tested = judged(graph, engine, original, precision)
    assert tested.verdict is Verdict.FAILED and tested.nonfinite == 1
    assert tested.worst_images[0][0] == f"{image}.png"


@given(precisions, st.integers(0, 99))
def test_it_survives_being_written(precision, seed):
    original, graph, _ = logits(seed=seed, precision=precision)
    for engine in (graph, original, -graph, np.full_like(graph, np.nan)):
        tested = judged(graph, engine, original, precision)
        text = json.dumps(tested.as_dict(), allow_nan=False)
        assert self_test_from_dict(json.loads(text)) == tested


def test_an_edited_verdict_that_does_not_follow_from_the_checks_is_refused():
    original, graph, _ = logits()
    broken = graph.copy()
    broken[0, 0] = np.nan
    for engine, verdict in ((graph, "failed"), (-graph, "passed"), (broken, "passed")):
        edited = judged(graph, engine, original).as_dict() | {"verdict": verdict}
        with pytest.raises(BundleError, match=f"the verdict is '{verdict}', but checks and nonfinite give"):
            self_test_from_dict(edited)


def at(db, *, n=200, classes=20, seed=0):
    """Logits, and errors that are this many dB smaller in every image."""
    random = np.random.default_rng(seed)
    signs = random.choice([-1.0, 1.0], (2, n, classes))
    return signs[0] * 4, signs[1] * 4 * 10 ** (-db / 20)


@pytest.mark.parametrize(
    ("precision", "own_db", "median_db", "single_db"),
    [
        # The slack below the graph's own ratio, and 6 dB more for single images.
        ("fp32", 90, 90 - 20, 90 - 26),
        ("fp16", 55, 55 - 20, 55 - 26),
        ("int8", 30, 30 - 4, 30 - 10),
        # The ceiling, and 10 dB less for single images.
        ("fp32", 120, 80, 70),
        ("fp16", 80, 42, 32),
        ("int8", 60, 42, 32),
    ],
)
def test_an_engine_may_be_as_far_off_as_the_precision_allows_and_no_further(
    precision, own_db, median_db, single_db
):
    graph, own = at(own_db)
    for db, passes in ((median_db + 0.01, True), (median_db - 0.01, False), (single_db - 0.01, False)):
        _, error = at(db, seed=1)
        median, single, *_ = judged(graph, graph + error, graph + own, precision).checks
        assert (median.limit, single.limit) == pytest.approx((median_db, single_db), abs=1e-6)
        assert (median.value, single.value) == pytest.approx((db, db), abs=1e-6)
        assert median.margin == pytest.approx(db - median_db, abs=1e-6)
        assert (median.verdict is Verdict.PASSED) == passes
        assert (single.verdict is Verdict.PASSED) == (db > single_db)


@pytest.mark.parametrize(("precision", "always"), [("fp32", 1e-5), ("fp16", 1e-2), ("int8", 1e-2)])
def test_a_single_image_may_diverge_four_times_as_much_as_those_of_the_graph_or_a_little(precision, always):
    graph, own = at(10)
    _, error = at(20, seed=1)
    expected = 4 * np.sort(divergences(graph + own, graph))[-5]
    for original, limit in ((graph + own, max(expected, always)), (graph, always)):
        check = judged(graph, graph + error, original, precision).checks[2]
        assert (check.unit, check.at_least, check.limit) == ("nats", False, pytest.approx(limit))
        assert check.value == pytest.approx(np.sort(divergences(graph, graph + error))[-5])
        assert check.margin == pytest.approx(10 * np.log10(limit / check.value))
        assert (check.verdict is Verdict.PASSED) == (check.value <= limit)


@pytest.mark.parametrize(
    ("own_db", "error_db", "limit_db"),
    [
        (30, 30, 30 + 10 * np.log10(200 / 8)),
        (30, 20, 20 + 10 * np.log10(200 / 8)),  # the engine's own errors, if they are larger
        (60, 60, 50),  # the ceiling
    ],
)
def test_what_all_images_have_in_common_is_far_below_their_errors(own_db, error_db, limit_db):
    graph, own = at(own_db)
    _, error = at(error_db, seed=1)
    checks = judged(graph, graph + error, graph + own).checks
    assert [check.unit for check in checks] == ["dB", "dB", "nats", "dB", "dB", "dB"]
    assert checks[-1].limit == pytest.approx(limit_db, abs=1e-6)
    shared = judged(graph, graph + error.mean() + 4 * 10 ** (-(limit_db - 0.5) / 20), graph + own).checks[-1]
    assert shared.verdict is Verdict.FAILED


@pytest.mark.parametrize(("factor_db", "name"), [(-3.1, "at least"), (-2.9, ""), (1.9, ""), (2.1, "at most")])
@pytest.mark.parametrize(("n", "missed"), [(99, Verdict.INCONCLUSIVE), (100, Verdict.FAILED)])
def test_an_engine_is_as_far_from_the_original_as_the_graph_is(factor_db, name, n, missed):
    """Three dB nearer at most, or two further; fewer than 100 images leave it open."""
    graph, own = at(30, n=n)
    original = graph + own
    engine = original - own * 10 ** (factor_db / 20)
    for precision, checked in (("int8", 6), ("fp16", 4)):
        checks = judged(graph, engine, original, precision).checks
        assert len(checks) == checked
        across = {check.name.rsplit(", ", 1)[1]: check for check in checks[3:5] if "distance" in check.name}
        for side, check in across.items():
            assert check.verdict is (missed if side == name else Verdict.PASSED)
            assert check.value == pytest.approx(factor_db, abs=1e-6)
    assert len(judged(graph, engine, original, "fp32").checks) == 3


def test_the_five_worst_images_are_named_and_equal_logits_are_200_db_apart():
    graph, _ = at(30)
    engine = graph.copy()
    for image, db in ((7, 10), (3, 0), (9, 5), (1, 20), (5, 30), (8, 40)):
        engine[image] += at(db)[1][image]
    engine[150] = np.nan
    worst = judged(graph, engine, graph).worst_images
    assert [name for name, _ in worst] == ["150.png", "3.png", "9.png", "7.png", "1.png"]
    assert [db for _, db in worst] == pytest.approx([-200, 0, 5, 10, 20], abs=1e-6)
    assert judged(graph, graph, graph).worst_images == tuple((f"{i}.png", 200.0) for i in range(5))
