"""The judgement of the self-test, on logits alone."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
