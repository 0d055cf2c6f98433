import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnnx.agreement import compare, judge, recorded_estimates, top_k, validation_from_dict
from cnnx.errors import BundleError
from cnnx.gates import DEFAULTS
from cnnx.record import Subject
from cnnx.stats import Verdict

SUBJECT = Subject("net", "graph", "0" * 64, "int8", "ort 1", "CPU")


def judged(original, engine, **options):
    options = {"labels": None, "image_set": "made up", **options}
    ids = [f"image-{i}" for i in range(len(original))]
    return judge(original, engine, subject=SUBJECT, limits=DEFAULTS["int8"], ids=ids, **options)


def logits(n=600, classes=20, seed=0):
    return np.random.default_rng(seed).normal(size=(n, classes)).astype(np.float32)


def rate(validation, name):
    return next(gate.value for gate in validation.gates if gate.name == name)


def test_an_engine_equal_to_its_original_passes_with_every_rate_one():
    same = judged(logits(), logits())
    assert [gate.value for gate in same.gates] == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert same.verdict is Verdict.PASSED and same.flips == () and same.logit_sqnr_db is None


# Few values in many classes: sorting that is not stable shows from 17 on.
@given(hnp.arrays(np.float32, (3, 200), elements=st.sampled_from([0.0, 1.0, 2.0])), st.integers(1, 9))
def test_ties_go_to_the_lower_class(values, k):
    wanted = [sorted(range(200), key=lambda place: (-row[place], place))[:k] for row in values]
    assert top_k(values, k).tolist() == wanted
    assert top_k(values[:, :4], 5).shape == (3, 4)


def test_the_three_rates_by_hand():
    original = np.array([[9, 8, 7, 6, 5, 4, 3]] * 2, np.float32)
    engine = np.array([[8, 9, 7, 6, 5, 4, 3], [0, 8, 7, 6, 5, 4, 3]], np.float32)
    validation = judged(original, engine)
    assert rate(validation, "top-1 agreement") == 0.0
    assert rate(validation, "top-1 in top-5") == 0.5
    assert rate(validation, "top-5 agreement") == pytest.approx((1.0 + 0.8) / 2)
    assert [flip.engine[0] for flip in validation.flips] == [1, 1]
    assert validation.logit_sqnr_db == pytest.approx(10 * np.log10(2 * 280 / (1 + 1 + 81)))


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (40, 8), elements=st.floats(-100, 100, width=32)), st.integers(0, 7))
def test_reordering_classes_alike_changes_no_rate_without_ties(values, shift):
    # Distinct logits in every row, so that no tie is broken by index.
    original = values.argsort(axis=1).argsort(axis=1).astype(np.float32)
    engine = np.roll(original, 1, axis=0)
    rolled = judged(np.roll(original, shift, axis=1), np.roll(engine, shift, axis=1))
    assert [g.value for g in rolled.gates] == pytest.approx([g.value for g in judged(original, engine).gates])


def test_logits_that_are_not_finite_agree_in_nothing():
    engine = logits()
    # The first class is where it was: it is one other logit that is not a number.
    engine[np.arange(300), engine[:300].argmin(axis=1)] = np.nan
    validation = judged(logits(), engine, labels=logits().argmax(axis=1).astype(np.int64))
    assert validation.nonfinite == len(validation.flips) == 300 and validation.logit_sqnr_db is None
    by_name = {gate.name: gate for gate in validation.gates}
    assert by_name.pop("clear agreement").value == pytest.approx(0.5, abs=0.05)
    assert by_name.pop("divergence").reason == "some logits are not finite"
    assert [gate.value for gate in by_name.values()] == [0.5] * 4
    assert validation.verdict is Verdict.FAILED
    found = compare(logits(), engine)
    assert (found.top1_agreement, found.top1_in_top5, found.top5_agreement) == (0.5, 0.5, 0.5)


def test_too_few_images_are_inconclusive_and_say_how_many_decide():
    validation = judged(logits(100), logits(100))
    gate = next(g for g in validation.gates if g.name == "top-1 in top-5")
    assert gate.verdict is Verdict.INCONCLUSIVE and gate.decides_at == 381
    assert validation.verdict is Verdict.INCONCLUSIVE


def test_labels_add_accuracy_under_mlperfs_rule():
    original = logits()
    labels = original.argmax(axis=1).astype(np.int64)
    engine = original.copy()
    engine[:60] = np.roll(original[:60], 1, axis=1)
    validation = judged(original, engine, labels=labels)
    assert (validation.accuracy.original, validation.accuracy.engine) == (1.0, 0.9)
    assert validation.accuracy.mcnemar < 1e-15
    assert validation.gates[-1].verdict is Verdict.FAILED
    assert validation.gates[-1].value == pytest.approx(0.9)
    assert validation.flips[0].label == labels[0]


def test_accuracy_counts_images_that_both_one_or_neither_get_right():
    """10 images: both right 5, only the original 2, only the engine 1, neither 2."""
    one_hot = np.eye(4, dtype=np.float32)
    labels = np.zeros(10, np.int64)
    original, engine = one_hot[[0] * 7 + [1] * 3], one_hot[[0] * 5 + [1] * 2 + [0] + [1] * 2]
    validation = judged(original, engine, labels=labels)
    assert (validation.accuracy.original, validation.accuracy.engine) == (0.7, 0.6)
    assert validation.accuracy.mcnemar == 1.0  # 2 * (1 + 3) / 2**3
    assert validation.gates[-1].value == pytest.approx(6 / 7)


def near_ties():
    """400 clear images, and 400 about which the original is nearly tied, 40 of which flip."""
    original = np.zeros((800, 10), np.float32)
    original[:, 3], original[400:, 4] = 4, 3.99
    engine = original.copy()
    engine[400:440, 4] = 4.01
    return original, engine


def test_near_ties_that_flip_do_not_fail_an_engine_but_clear_images_do():
    original, engine = near_ties()
    validation = judged(original, engine)
    assert (rate(validation, "top-1 agreement"), rate(validation, "clear agreement")) == (0.95, 1.0)
    assert validation.verdict is Verdict.PASSED and len(validation.flips) == 40
    engine[:40, 4] = 5
    gates = {gate.name: gate for gate in judged(original, engine).gates}
    assert gates["clear agreement"].value == 0.9 and gates["clear agreement"].verdict is Verdict.FAILED
    assert gates["divergence"].verdict is Verdict.FAILED


def test_the_margin_of_a_clear_image_can_be_stated_also_when_judged_again():
    original, engine = near_ties()
    validation = judged(original, engine, images="ab" * 32)
    found = recorded_estimates(validation_from_dict(validation.as_dict()), margin=0.0)
    assert found["clear_agreement"].value == 0.95
    assert recorded_estimates(validation)["clear_agreement"].value == 1.0
    assert isinstance(recorded_estimates(validation, margin=0.99)["clear_agreement"], str)


def test_an_original_that_is_never_right_decides_nothing_about_accuracy():
    labels = (logits().argmax(axis=1) + 1) % 20
    gate = judged(logits(), logits(seed=1), labels=labels.astype(np.int64)).gates[-1]
    assert (gate.value, gate.interval.low, gate.interval.high) == (0, 0, 1)
    assert gate.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "change",
    [{"verdict": "passed"}, {"verdict": "not judged", "reasons": []}],
    ids=["a better verdict", "no verdict and no reason"],
)
def test_an_edited_verdict_that_does_not_follow_from_the_gates_is_refused(change):
    edited = judged(logits(), logits(seed=1)).as_dict() | change
    with pytest.raises(BundleError, match="but the gates give 'failed'"):
        validation_from_dict(edited)
    given = judged(logits(), logits(seed=1), cannot_judge=("the weights are stand-ins",))
    assert validation_from_dict(given.as_dict()) == given


def test_nothing_passes_where_nothing_may_be_judged():
    validation = judged(logits(), logits(), cannot_judge=("the weights are stand-ins",))
    assert validation.verdict is Verdict.NOT_JUDGED
    assert {gate.verdict for gate in validation.gates} == {Verdict.NOT_JUDGED}
    assert rate(validation, "top-1 agreement") == 1.0


def test_a_validation_survives_being_written():
    original = logits()
    validation = judged(original, logits(seed=1), labels=original.argmax(axis=1).astype(np.int64))
    assert validation.flips and validation_from_dict(validation.as_dict()) == validation


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-50, 50), st.floats(0.01, 3))
def test_divergence_is_that_of_probabilities(seed, shift, noise):
    original = logits(40, seed=seed)
    other = original + noise * logits(40, seed=seed ^ 1)
    p, q = (np.exp(each.astype(np.float64)) for each in (original, other))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    found = compare(original, other)
    assert found.divergence == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)), rel=1e-6)
    assert compare(original, other + np.float32(shift)).divergence == pytest.approx(
        found.divergence, rel=1e-3
    )
    rates = {gate.name: gate.value for gate in judged(original, other).gates}
    assert (found.top1_agreement, found.top5_agreement) == (
        rates["top-1 agreement"], rates["top-5 agreement"]
    )  # fmt: skip


def test_equal_logits_do_not_diverge_and_infinite_ones_do():
    same = compare(logits(), logits())
    assert (same.divergence, same.top1_agreement, same.logit_sqnr_db) == (0, 1, None)
    broken = logits()
    broken[3, 2] = np.inf
    assert compare(logits(), broken).divergence == np.inf
