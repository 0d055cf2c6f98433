import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnnx.agreement import (
    compare,
    estimates,
    first_classes,
    judge,
    noise_floor,
    recorded_estimates,
    top_k,
    validation_from_dict,
    with_gates,
)
from cnnx.agreement.logits import margins, mean_interval
from cnnx.errors import BundleError
from cnnx.gates import DEFAULTS, Estimate, decided
from cnnx.record import Subject
from cnnx.stats import Interval, Verdict

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
    assert first_classes(values).tolist() == [row[0] for row in wanted]
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
    lost = engine[:300].argmin(axis=1)
    engine[np.arange(300), lost] = np.resize([np.nan, np.inf], 300)
    labels = logits().argmax(axis=1).astype(np.int64)
    validation = judged(logits(), engine, labels=labels, images="ab" * 32)
    assert validation.nonfinite == len(validation.flips) == 300 and validation.logit_sqnr_db is None
    assert all(bad not in flip.engine for bad, flip in zip(lost, validation.flips, strict=True))
    assert validation.outcomes.engine == (-1,) * 300 + validation.outcomes.original[300:]
    assert validation.outcomes.original == validation.outcomes.labels == tuple(labels)
    assert noise_floor(logits(), engine, runtime="ort") is None
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


def test_without_labels_gates_of_accuracy_are_reported_only_if_they_were_asked_for():
    assert not any("accuracy" in gate.name for gate in judged(logits(), logits()).gates)
    asked = judged(logits(), logits(), stated=("accuracy_ratio",)).gates[-1]
    assert (asked.name, asked.verdict) == ("accuracy / original's", Verdict.NOT_JUDGED)
    assert asked.reason == "the images have no labels"


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
    older = validation.as_dict()
    older["outcomes"]["margins"] = None
    kept = recorded_estimates(validation_from_dict(older), margin=0.0)["clear_agreement"]
    assert kept.value == 1.0, "as it was recorded, with the margin of then"


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("finite", [True, False])
def test_estimates_of_a_record_are_those_it_was_made_from(labelled, finite):
    original, engine = logits(), logits() + 0.3 * logits(seed=1)
    engine[7, 3] = engine[7, 3] if finite else np.nan
    labels = original.argmax(axis=1).astype(np.int64) if labelled else None
    validation = judged(original, engine, labels=labels, images="ab" * 32)
    assert recorded_estimates(validation) == estimates(original, engine, validation.right)
    # Records of older versions lack what was added since: estimates then come from the recorded gates.
    data = validation.as_dict()
    for key in ("outcomes", "right", "divergence", "floor", "assumed_preprocessing"):
        del data[key]
    older = validation_from_dict(data)
    assert not older.assumed_preprocessing
    found, whole = recorded_estimates(older), recorded_estimates(validation)
    for key in ("top1_agreement", "top1_in_top5", "top5_agreement", "accuracy"):
        assert found[key] == whole[key], key
    assert found["clear_agreement"].interval == whole["clear_agreement"].interval
    assert getattr(found["divergence_nats"], "interval", 0) == getattr(
        whole["divergence_nats"], "interval", 0
    )
    assert not finite or found["divergence_nats"].value == whole["divergence_nats"].value
    if labelled:
        assert found["accuracy_ratio"].value == whole["accuracy_ratio"].value
    data["gates"] = []
    del data["accuracy"]
    bare = recorded_estimates(validation_from_dict(data | {"accuracy": None, "verdict": "passed"}))
    assert bare["top1_agreement"] == "the record does not have it"
    assert bare["accuracy"] == bare["accuracy_ratio"] == "the images have no labels"
    assert bare["divergence_nats"] == ("the record does not have it" if finite else Estimate(float("inf")))


def test_where_nothing_may_be_judged_only_a_failed_gate_decides():
    validation = judged(logits(), logits(), cannot_judge=("the weights are stand-ins",))
    assert not validation.assumed_preprocessing
    for value, verdict in ((3.0, Verdict.NOT_JUDGED), (5.0, Verdict.FAILED)):
        gate = decided("graph_mib", 4, Estimate(value))
        more = with_gates(validation, [gate], instead_of=["top1_agreement"])
        assert more.verdict is verdict and more.gates == (*validation.gates[1:], gate)
        assert with_gates(judged(logits(), logits()), [gate]).verdict is (
            Verdict.PASSED if value < 4 else Verdict.FAILED
        )


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


@pytest.mark.parametrize(
    ("classes", "said"), [([-2] * 9, "outcomes.engine"), ([0] * 8, "engine has 8 values")]
)
def test_outcomes_that_are_no_classes_or_of_fewer_images_are_refused(classes, said):
    edited = judged(logits(9), logits(9), images="ab" * 32).as_dict()
    edited["outcomes"]["engine"] = classes
    with pytest.raises(BundleError, match=said):
        validation_from_dict(edited)


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


def test_logits_of_any_size_have_probabilities():
    large = np.array([[60000, 59999, -60000], [1e30, 0, 0]], np.float32)
    assert compare(large, large).divergence == 0
    assert margins(large) == pytest.approx([np.tanh(0.5), 1])
    assert compare(large[:1], large[:1, [1, 0, 2]]).divergence == pytest.approx(np.tanh(0.5))


def test_equal_logits_do_not_diverge_and_infinite_ones_do():
    same = compare(logits(), logits())
    assert (same.divergence, same.top1_agreement, same.logit_sqnr_db) == (0, 1, None)
    broken = logits()
    broken[3, 2] = np.inf
    assert compare(logits(), broken).divergence == np.inf


@given(hnp.arrays(np.float64, st.integers(10, 60), elements=st.floats(0, 1e-3) | st.just(1.0)))
def test_the_interval_of_a_mean_holds_it_and_nothing_below_zero(values):
    found = mean_interval(values)
    assert 0 <= found.low <= values.mean() * (1 + 1e-12) and values.mean() * (1 - 1e-12) <= found.high
    assert mean_interval(4 * values) == Interval(4 * found.low, 4 * found.high)


@given(hnp.arrays(np.float32, st.tuples(st.just(4), st.integers(2, 12)), elements=st.floats(-9, 9, width=32)))
def test_a_margin_is_the_distance_of_the_two_largest_probabilities(values):
    p = np.exp(values.astype(np.float64))
    first, second = np.sort(p / p.sum(axis=1, keepdims=True), axis=1)[:, -1:-3:-1].T
    assert margins(values) == pytest.approx(first - second, abs=1e-12)


def test_the_interval_of_a_mean_is_the_studentized_bootstraps():
    values = np.random.default_rng(3).exponential(size=40)
    drawn = np.random.default_rng(4).choice(values, (20000, 40))
    t = (drawn.mean(axis=1) - values.mean()) / (drawn.std(axis=1) / 40**0.5)
    error = values.std() / 40**0.5
    low, high = values.mean() - np.quantile(t, [0.975, 0.025]) * error
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert mean_interval(values) == mean_interval(values, seed=0) != mean_interval(values, seed=1)


@pytest.mark.parametrize("value", [0.0, 0.5, 0.1, 5.89375091e-4])
def test_equal_values_among_which_one_differs_have_a_mean_that_is_known(value):
    """A resample without the one has no deviation but that of rounding, which made an upper bound of 1e18."""
    found = mean_interval(np.array([1.0, *[value] * 9]))
    assert found.low <= 0.9 * value + 0.1 <= found.high < 2


def test_a_mean_of_fewer_than_ten_values_may_be_anything_up_to_the_largest_of_them():
    assert mean_interval(np.full(9, 0.5)) == mean_interval(np.arange(9) / 16) == Interval(0.0, 0.5)
    assert mean_interval(np.full(10, 0.5)) == Interval(0.5, 0.5)


def test_the_noise_floor_is_what_changes_without_any_quantization():
    graph = logits()
    graph[:3] = np.roll(graph[:3], 1, axis=1)
    floor = noise_floor(logits(), graph, runtime="ort 1")
    assert (floor.runtime, floor.flips) == ("ort 1", 3)
    assert floor.divergence_nats == compare(logits(), graph).divergence
