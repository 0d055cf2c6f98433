"""Nothing here waits: sessions are fakes on a clock of their own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.errors import BundleError, UsageError
from cnnx.measure import Latency, measure_latency, measure_side_by_side, samples_needed
from tests.doubles.sessions import FakeClock, FakeSession
from tests.inputs.again import again

MS = 1_000_000
POOL = np.zeros((6, 1, 2, 2), np.float32)


def measured(latencies_ns, *, batch=1, images=POOL, **limits):
    clock = FakeClock()
    session = FakeSession(lambda x: x.reshape(len(x), -1), latencies_ns=latencies_ns, clock=clock)
    return session, measure_latency(session, images, batch=batch, clock=clock, **limits), clock


def of(*samples_ns, batch=1):
    return Latency(samples_ns, batch=batch, warmup=0, warmup_ended="steady", complete=True)


def test_the_cold_start_is_not_counted_and_nothing_else_is_left_out():
    falling = [int(40 * MS * 0.9**i) + 3 * MS for i in range(25)]
    spikes = itertools.cycle([*[2 * MS] * 99, 50 * MS])
    _, latency, _ = measured(itertools.chain(falling, spikes), min_seconds=2.0, min_samples=100)
    assert latency.warmup_ended == "steady"
    assert latency.complete
    assert latency.warmup >= 25
    assert set(latency.samples_ns) == {2 * MS, 50 * MS}
    assert sum(latency.samples_ns) >= 2e9


@pytest.mark.parametrize("min_seconds, min_samples", [(3.0, 100), (0.1, 1000), (0.0, 1)])
def test_both_minimums_are_met_and_not_far_exceeded(min_seconds, min_samples):
    _, latency, _ = measured([MS], min_seconds=min_seconds, min_samples=min_samples)
    wanted = max(min_samples, int(min_seconds * 1000))
    assert wanted <= len(latency.samples_ns) < wanted + 10


def test_a_network_that_never_settles_says_so():
    _, latency, clock = measured((MS * 1.1**i for i in range(10**6)), max_seconds=20.0, min_samples=10**6)
    assert latency.warmup_ended == "time limit"
    assert not latency.complete
    assert latency.samples_ns
    assert clock.now_ns < 40e9


@pytest.mark.parametrize(("growth", "ended"), [(1.01, "steady"), (1.03, "time limit")])
def test_warm_is_where_ten_runs_take_what_the_ten_before_took_to_two_percent(growth, ended):
    creeping = (int(10 * MS * growth ** (run / 10)) for run in itertools.count())
    _, latency, _ = measured(creeping, max_seconds=20.0, min_samples=50, min_seconds=0)
    assert latency.warmup_ended == ended


@pytest.mark.parametrize(("took", "runs"), [(50 * MS, 20), (MS, 200)])
def test_warming_up_takes_two_windows_of_ten_runs_and_a_fifth_of_a_second(took, runs):
    _, latency, _ = measured([took], min_samples=50, min_seconds=0)
    assert (latency.warmup_ended, latency.warmup) == ("steady", runs + 5)  # and the first of each turn


@pytest.mark.parametrize(("share", "ended"), [(0.2, "steady"), (0.3, "time limit")])
def test_warming_up_may_take_a_quarter_of_the_time(share, ended):
    """Every run takes 1 % longer, until that share of 40 s has passed."""
    climb = next(runs for runs in itertools.count() if (1.01**runs - 1) / 0.01 * 0.01 > share * 40)
    climbing = (int(10 * MS * 1.01 ** min(run, climb)) for run in itertools.count())
    _, latency, _ = measured(climbing, max_seconds=40.0, min_samples=5, min_seconds=0)
    assert latency.warmup_ended == ended


def test_a_slow_network_stops_at_the_time_limit_with_what_it_has():
    _, latency, clock = measured([2_000 * MS], max_seconds=30.0)
    assert not latency.complete
    assert 0 < len(latency.samples_ns) <= 15
    assert clock.now_ns <= 34e9
    assert latency.p90_ns is None
    assert latency.p99_ns is None
    assert latency.throughput == 0.5


def side_by_side(latencies_ns, clock):
    session = FakeSession(lambda x: x, latencies_ns=latencies_ns, clock=clock)
    return measure_side_by_side({"": session}, POOL, batch=1, clock=clock)[""]


def alone(latencies_ns, clock):
    return measure_latency(
        FakeSession(lambda x: x, latencies_ns=latencies_ns, clock=clock), POOL, batch=1, clock=clock
    )


@pytest.mark.parametrize("measure", [alone, side_by_side])
def test_by_default_three_seconds_and_a_hundred_samples_are_measured_in_at_most_a_minute(measure):
    assert len(measure([MS], FakeClock()).samples_ns) == pytest.approx(3000, abs=10)
    assert len(measure([100 * MS], FakeClock()).samples_ns) == pytest.approx(100, abs=10)
    clock = FakeClock()
    slow = measure([5_000 * MS], clock)
    assert not slow.complete and 60e9 <= clock.now_ns <= 70e9


def test_the_pool_is_cycled_in_whole_batches():
    seen = []
    clock = FakeClock()
    session = FakeSession(lambda x: seen.append(x[0, 0, 0, 0]) or x, clock=clock)
    pool = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1)
    latency = measure_latency(session, pool, batch=3, min_seconds=0, clock=clock)
    assert set(session.batches) == {3}
    assert set(seen) == {0.0, 3.0}
    assert latency.throughput == pytest.approx(3000)
    larger, _, _ = measured([MS], batch=16, min_seconds=0)
    assert set(larger.batches) == {16}


def test_progress_rises_to_the_end():
    told = []
    measured([MS], progress=told.append)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)


def test_what_drifts_hits_sessions_side_by_side_alike():
    """A machine that grows twice as slow meanwhile: one after the other would favour the first."""
    clock = FakeClock()

    def drifting(base_ns):
        while True:
            yield int(base_ns * (1 + clock.now_ns / 5e9))

    sessions = {
        name: FakeSession(lambda x: x, latencies_ns=drifting(base), clock=clock)
        for name, base in (("slow", 2 * MS), ("fast", MS))
    }
    found = measure_side_by_side(sessions, POOL, batch=1, min_samples=1000, min_seconds=0, clock=clock)
    assert clock.now_ns > 4e9
    assert found["slow"].mean_ns / found["fast"].mean_ns == pytest.approx(2.0, rel=0.001)
    assert found["slow"].complete
    assert found["fast"].complete


def test_the_first_run_of_a_turn_is_not_counted():
    clock = FakeClock()
    after = {"who": ""}

    def turns(name):
        while True:
            cold, after["who"] = after["who"] != name, name
            yield 9 * MS if cold else MS

    sessions = {
        name: FakeSession(lambda x: x, latencies_ns=turns(name), clock=clock) for name in ("a", "b", "c")
    }
    found = measure_side_by_side(sessions, POOL, batch=1, min_samples=50, min_seconds=0, clock=clock)
    assert all(set(latency.samples_ns) == {MS} for latency in found.values())
    for name, session in sessions.items():
        assert len(session.batches) == found[name].warmup + len(found[name].samples_ns)


@pytest.mark.parametrize(
    "limits", [{"batch": 0}, {"max_seconds": 0.0}, {"min_samples": 0}, {"images": POOL[:0]}]
)
def test_impossible_measurements_are_refused(limits):
    with pytest.raises(UsageError):
        measured([MS], **limits)


def test_samples_needed_are_loadgens():
    """MLPerf's inference rules, Early Stopping: 64 queries for the 90th, 662 for the 99th percentile."""
    assert samples_needed(0.90) == 64
    assert samples_needed(0.99) == 662
    for share in (0.0, 1.0, 99.0):
        with pytest.raises(UsageError):
            samples_needed(share)


@pytest.mark.parametrize("share, enough", [(0.5, 11), (0.9, 64), (0.99, 662)])
def test_a_percentile_that_samples_cannot_support_is_none(share, enough):
    assert of(*range(enough - 1)).percentile_ns(share) is None
    assert of(*range(enough - 1)).percentile_bound_ns(share) is None
    # Just enough: one run over is allowed for, so the bound is the slowest of all.
    assert of(*range(enough)).percentile_bound_ns(share) == enough - 1


def test_the_bound_leaves_out_what_the_binomial_allows():
    """1000 runs, p90: at most 77 over the percentile have a chance of 0.7 %, at most 78 of 0.9 %, 79 of 1.2 %
    (exact binomial sums), so 77 are left out."""
    assert of(*range(1000)).percentile_bound_ns(0.9) == 999 - 77


@given(st.lists(st.integers(1, 10**9), min_size=64, max_size=150))
def test_percentiles_are_samples_in_order(samples):
    latency = of(*samples)
    assert {latency.p50_ns, latency.p90_ns, latency.percentile_bound_ns(0.9)} <= set(samples)
    assert (
        min(samples) <= latency.p50_ns <= latency.p90_ns <= latency.percentile_bound_ns(0.9) <= max(samples)
    )
    assert sum(sample <= latency.p90_ns for sample in samples) >= 0.9 * len(samples)
    assert sum(sample < latency.p90_ns for sample in samples) < 0.9 * len(samples)


@given(st.integers(0, 2**31), st.floats(0.6, 0.9))
def test_the_bound_covers_the_true_percentile(seed, share):
    """At 99 % confidence a true percentile is missed by 1 in 100: never by 10 in 100."""
    rng = np.random.default_rng(seed)
    draws = rng.random((100, 150))
    bounds = [of(*(row * 1e9).astype(np.int64).tolist()).percentile_bound_ns(share) for row in draws]
    assert sum(bound < share * 1e9 for bound in bounds) < 10


def test_statistics_of_known_samples():
    latency = of(1 * MS, 2 * MS, 3 * MS, batch=4)
    assert latency.mean_ns == 2 * MS
    assert latency.coefficient_of_variation == pytest.approx(0.5)
    assert latency.throughput == pytest.approx(2000.0)
    assert (of(*range(1, 101)).p50_ns, of(*range(1, 101)).p90_ns, of(*range(1, 1001)).p99_ns) == (50, 90, 990)
    assert of(MS).coefficient_of_variation is None and of(0, 0).coefficient_of_variation is None
    assert again(Latency, latency.as_dict()) == latency
    older = {key: value for key, value in latency.as_dict().items() if key not in ("turn", "parts")}
    assert again(Latency, older) == latency, "turns had ten runs before records said so"
    with pytest.raises(BundleError, match="samples_ns"):
        again(Latency, {**latency.as_dict(), "samples_ns": []})
