"""What two values make of each other, by evidence that is made up."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.agreement import Outcomes
from cnnx.gates import KINDS, SIMILARITY, Estimate
from cnnx.measure.samples import Latency
from cnnx.pipeline.compare.changes import (
    EXACT,
    Change,
    agreement_changes,
    energy_change,
    latency_change,
    memory_change,
    size_change,
)
from cnnx.pipeline.compare.evidence import Judged, Timed, Used
from cnnx.record import Subject
from cnnx.stats import Interval, Paired, difference, wilson

SUBJECT = Subject("net", "graph", "0" * 64, "int8", "ort 1", "CPU: one")


def judged(rate, n=500, *, outcomes=None, **found):
    estimates = {key: Estimate(rate, wilson(rate, n), n, wilson=True) for key in (*SIMILARITY, "accuracy")}
    return Judged(SUBJECT, n, "made up", {**estimates, **found}, outcomes)


def timed(p50, *, device="CPU: one", memory=("host peak", 2**20), latency=None, together="", n=1000):
    estimate = (
        Estimate(p50, Interval(0.98 * p50, 1.03 * p50), n, "samples") if isinstance(p50, float) else p50
    )
    subject = dataclasses.replace(SUBJECT, device=device)
    return Timed(subject, 4, {"device": device}, estimate, "none", memory, latency, together)


def used(gross, low=None, **conditions):
    interval = (
        Interval(0.9 * gross if low is None else low, 1.2 * gross) if isinstance(gross, float) else None
    )
    found = Estimate(gross, interval) if isinstance(gross, float) else gross
    return Used(SUBJECT, 4, {"device": "CPU: one", **conditions}, found)


@pytest.mark.parametrize(
    ("interval", "ratio", "lower_is_better", "outcome"),
    [
        ((1.01, 1.2), True, True, "worse"),
        ((0.8, 0.99), True, True, "better"),
        ((1.0, 1.2), True, True, "no difference shown"),
        ((0.8, 1.0), True, True, "no difference shown"),
        ((0.01, 0.2), False, False, "better"),
        ((-0.2, -0.01), False, False, "worse"),
        ((0.01, 0.2), False, True, "worse"),
        ((-0.2, 0.0), False, False, "no difference shown"),
    ],
)
def test_an_interval_without_equality_is_better_or_worse(interval, ratio, lower_is_better, outcome):
    change = Change("x", "", 1, 1, sum(interval) / 2, Interval(*interval), ratio, lower_is_better, "")
    assert change.outcome == outcome


@pytest.mark.parametrize(
    ("change", "how", "outcome"),
    [
        (None, EXACT, "not compared"),
        (1.5, "measured once", "no interval"),
        (1.5, EXACT, "worse"),
        (0.5, EXACT, "better"),
        (1.0, EXACT, "no difference shown"),
    ],
)
def test_without_an_interval_only_what_is_exact_is_better_or_worse(change, how, outcome):
    assert Change("x", "", 1, 1, change, None, True, True, how).outcome == outcome


def test_a_side_that_was_not_validated_is_named():
    for sides, words in (
        ((None, judged(0.9)), "the base has no validation"),
        ((judged(0.9), None), "new has no validation"),
    ):
        [change] = agreement_changes(*sides)
        assert (change.what, change.how, change.outcome) == ("agreement", words, "not compared")


def test_rates_of_different_images_differ_by_newcombes_interval_and_the_other_way_round_by_its_reverse():
    base, new = judged(0.9, 400), judged(0.95, 300)
    forth, back = agreement_changes(base, new), agreement_changes(new, base)
    assert [each.what for each in forth] == [KINDS[key].name for key in (*SIMILARITY, "accuracy")]
    expected = difference(0.95, wilson(0.95, 300), 0.9, wilson(0.9, 400))
    for one, other in zip(forth, back, strict=True):
        assert (one.base, one.new, one.change) == (0.9, 0.95, pytest.approx(0.05))
        assert one.interval == expected and not one.ratio and one.count == other.count == 300
        assert one.how == "not paired: 400 and 300 images"
        assert (other.interval.low, other.interval.high) == pytest.approx((-expected.high, -expected.low))
    assert [each.what for each in forth if each.lower_is_better] == ["divergence"]


def test_a_rate_without_interval_or_a_divergence_without_end_is_not_compared():
    broken = judged(
        0.9,
        divergence_nats=Estimate(math.inf),
        top1_agreement=Estimate(0.5),
        accuracy="the images have no labels",
    )
    for sides, values in (((judged(0.9), broken), [0.9, None]), ((broken, judged(0.9)), [None, 0.9])):
        found = {each.what: each for each in agreement_changes(*sides) if each.change is None}
        assert {each.how for each in found.values()} == {
            "a value has no interval",
            "the images have no labels",
        }
        assert set(found) == {"top-1 agreement", "divergence", "accuracy"}
        assert [found["divergence"].base, found["divergence"].new] == values
        assert [found["accuracy"].base, found["accuracy"].new] == values
    unknown = agreement_changes(judged(0.9), dataclasses.replace(broken, found={}))
    assert {each.how for each in unknown} == {"it is unknown"}


def outcomes(engine, *, images="ab" * 32, original=None, labels=None):
    return Outcomes(images, tuple(original or (0,) * len(engine)), tuple(engine), labels)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=60))
def test_on_the_same_images_agreement_and_accuracy_are_paired(rows):
    originals, labels, one, other = (tuple(column) for column in zip(*rows, strict=True))
    base, new = (
        judged(0.9, outcomes=outcomes(each, original=originals, labels=labels)) for each in (one, other)
    )
    found = agreement_changes(base, new)
    for change, truth in ((found[0], originals), (found[-1], labels)):
        before, after = np.equal(one, truth), np.equal(other, truth)
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        both, neither = int((before & after).sum()), int((~before & ~after).sum())
        margin = Paired(both, lost, won, neither).margin(1.0)
        assert (change.base, change.new) == (before.mean(), after.mean())
        assert change.interval == margin and change.count == len(rows) and not change.lower_is_better
        assert f"{lost} only base, {won} only new" in change.how
        assert change.change == pytest.approx((won - lost) / len(rows))
    assert all("not paired" in each.how for each in found[1:-1])


@pytest.mark.parametrize(
    "other",
    [
        {"images": "cd" * 32},
        {"labels": None},
        {"labels": (0, 1, 1)},
        {"engine": (0, 1), "labels": (0, 1)},
        None,
    ],
)
def test_what_is_not_of_the_same_images_is_not_paired(other):
    """Whatever a record says: its digest of the images may be that of others."""
    one = {"engine": (0, 1, 2), "labels": (0, 1, 2)}
    sides = [judged(0.9, outcomes=outcomes(**one))]
    sides.append(judged(0.9, outcomes=None if other is None else outcomes(**{**one, **other})))
    for base, new in (sides, sides[::-1]):
        assert all("not paired" in each.how for each in agreement_changes(base, new))


def test_without_labels_agreement_is_paired_and_accuracy_is_not():
    same = [judged(0.9, outcomes=outcomes((0, 1, 2)))] * 2
    first, *_, accuracy = agreement_changes(*same)
    assert first.how.startswith("paired on 3 images") and accuracy.how.startswith("not paired")


def test_the_ratio_of_two_latencies_has_an_interval_that_turns_round_with_them():
    forth, back = latency_change(timed(2.0, n=700), timed(3.0)), latency_change(timed(3.0), timed(2.0, n=700))
    assert (forth.what, forth.unit, forth.batch) == ("latency p50, batch 4", "ms", 4)
    assert (forth.base, forth.new, forth.change) == (2.0, 3.0, 1.5) and forth.ratio and forth.lower_is_better
    assert back.change == pytest.approx(1 / 1.5) and forth.count == back.count == 700
    assert (forth.interval.low, forth.interval.high) == pytest.approx(
        (1 / back.interval.high, 1 / back.interval.low)
    )
    # Distances on a logarithmic scale add up as squares.
    half = math.hypot(math.log(1 / 0.98), math.log(1.03))
    assert forth.interval.low == pytest.approx(1.5 * math.exp(-half))
    assert forth.interval.high == pytest.approx(1.5 * math.exp(half))
    assert (forth.counted, forth.outcome, back.outcome) == ("samples", "worse", "better")


def test_only_measurements_that_took_turns_with_each_other_are_compared_by_turns():
    def turns(factor, together, device="CPU: one"):
        samples = tuple(range(1_000_000 * factor, 1_000_000 * factor + 200))
        latency = Latency(samples, 4, 5, "steady", complete=True)
        return timed(float(factor), latency=latency, together=together, device=device)

    paired = latency_change(turns(1, "a"), turns(2, "a"))
    assert (paired.counted, paired.count) == ("rounds", 20) and "turns" in paired.how
    assert paired.change == pytest.approx(2, rel=1e-3)
    for base, new in (("a", "b"), ("", ""), ("a", "")):
        assert latency_change(turns(1, base), turns(2, new)).counted == "samples"
    for one in (timed(1.0, together="a"), dataclasses.replace(turns(1, "a"), latency=None)):
        assert latency_change(one, turns(2, "a")).counted == "samples"
    few = Latency((1,) * 90, 4, 5, "steady", complete=True)
    sides = [timed(1.0, latency=few, together="a")] * 2
    assert latency_change(*sides).counted == "samples", "nine rounds are too few"


def test_a_latency_that_decides_nothing_or_of_another_device_is_not_compared():
    for sides, words, values in (
        ((timed("too few"), timed(1.0)), "base: too few", (None, 1.0)),
        ((timed(1.0), timed("too few")), "new: too few", (1.0, None)),
        ((timed(1.0), timed(2.0, device="CPU: two")), "device differs: CPU: one and CPU: two", (1.0, 2.0)),
    ):
        change = latency_change(*sides)
        assert (change.how, change.change, (change.base, change.new)) == (words, None, values)
        assert change.batch == 4 and change.unit == "ms"


def test_memory_is_a_ratio_without_interval_of_the_same_kind_on_the_same_device():
    change = memory_change(
        timed(1.0, memory=("host peak", 2**21)), timed(1.0, memory=("host peak", 3 * 2**20))
    )
    assert (change.base, change.new, change.change, change.interval) == (2, 3, 1.5, None)
    assert (change.outcome, change.unit, change.batch) == ("no interval", "MiB", 4)
    for base, new, words in (
        (
            timed(1.0, memory=("GPU memory", 5)),
            timed(1.0),
            "kind of memory differs: GPU memory and host peak",
        ),
        (timed(1.0, memory="unknown"), timed(1.0), "unknown"),
        (timed(1.0), timed(1.0, memory="unknown"), "unknown"),
        (timed(1.0, device="CPU: two"), timed(1.0), "device differs: CPU: two and CPU: one"),
        (timed(1.0, memory=("host peak", 0)), timed(1.0), "it is 0"),
    ):
        assert (memory_change(base, new).how, memory_change(base, new).outcome) == (words, "not compared")


def test_energy_is_a_ratio_under_equal_conditions():
    forth, back = energy_change(used(2.0), used(4.0)), energy_change(used(4.0), used(2.0))
    assert (forth.base, forth.new, forth.change, forth.unit, forth.batch) == (2.0, 4.0, 2.0, "mJ", 4)
    assert forth.interval.low == pytest.approx(1 / back.interval.high) and forth.outcome == "worse"
    for base, new, words in (
        (used("doubtful"), used(1.0), "base: doubtful"),
        (used(1.0), used("doubtful"), "new: doubtful"),
        (used("one"), used("other"), "base: one"),
        (used(1.0, sensor="ina"), used("doubtful", sensor="nvml"), "sensor differs: ina and nvml"),
        (used(1.0, low=0.0), used(1.0), "a value has no interval above 0"),
        (used(1.0), dataclasses.replace(used(1.0), gross_mj=Estimate(1.0)), "no interval above 0"),
        (dataclasses.replace(used(1.0), gross_mj=Estimate(1.0)), used(1.0), "no interval above 0"),
    ):
        change = energy_change(base, new)
        assert words in change.how and change.outcome == "not compared" and change.batch == 4


def test_sizes_are_exact_ratios():
    change = size_change("engine_mib", Estimate(2.0), Estimate(3.0))
    assert (change.what, change.unit, change.change, change.outcome) == ("engine size", "MiB", 1.5, "worse")
    assert size_change("engine_mib", Estimate(2.0), Estimate(2.0)).outcome == "no difference shown"
    for base, new, words in (
        ("no engine", Estimate(1.0), "no engine"),
        (Estimate(1.0), "no engine", "no engine"),
        (Estimate(0.0), Estimate(1.0), "it is 0"),
    ):
        assert (size_change("engine_mib", base, new).how, size_change("engine_mib", base, new).change) == (
            words, None
        )  # fmt: skip
