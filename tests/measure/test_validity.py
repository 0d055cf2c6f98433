"""Verdicts on made-up measurements; the thresholds are trtexec's and nvbench's."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from cnnx.machine.state import Frequency
from cnnx.measure import (
    Breakdown,
    Latency,
    MachineState,
    compare,
    judge_validity,
    measure_side_by_side,
)
from cnnx.runtimes import RunTimes
from tests.doubles.sessions import FakeClock, FakeSession, FakeTimedSession
from tests.inputs.again import again

US = 1000
MS = 10**6
SECOND = 10**9
POOL = np.zeros((6, 1, 2, 2), np.float32)
GOOD = RunTimes(enqueue_ns=100 * US, h2d_ns=20 * US, compute_ns=500 * US, d2h_ns=5 * US)


def state(mhz=1500.0, *, throttling=(), temperatures=None, **more):
    return MachineState(None, Frequency(mhz, None, 1600.0), None, temperatures or {}, throttling, **more)


def held(power_ns, **more):
    """A snapshot of a second of measuring; the first has counted nothing."""
    return state(held_ns={"power": power_ns}, at_ns=SECOND * bool(power_ns), **more)


UNKNOWN = MachineState(None, None, None, {}, ())


def heat(celsius, **limits):
    return state(temperatures={"GPU": celsius, "wifi": 99.0}, limits_c=limits)


def latency(*runs, **changes):
    ends = tuple(run.latency_ns + 50 * US for run in runs)
    return dataclasses.replace(Latency(ends, 1, 20, "steady", True, parts=Breakdown.of(runs)), **changes)


def rules(measured, **options):
    return [found.rule for found in judge_validity(measured, on_gpu=True, **options).findings]


@pytest.mark.parametrize(
    ("measured", "options", "expected"),
    [
        (latency(*[GOOD] * 20), {"states": [state(), state()]}, []),
        (latency(*[dataclasses.replace(GOOD, enqueue_ns=400 * US)] * 20), {}, []),
        (latency(*[dataclasses.replace(GOOD, enqueue_ns=401 * US)] * 20), {}, ["enqueue-bound"]),
        (
            latency(*[GOOD, dataclasses.replace(GOOD, compute_ns=600 * US)] * 12),
            {},
            ["unsteady"],
        ),
        # 3 % slower from the middle on.
        (
            latency(*[GOOD] * 20, *[dataclasses.replace(GOOD, compute_ns=515 * US)] * 20),
            {},
            ["drift"],
        ),
        # The coefficient of variation is 60 %, and the median that of the network.
        (
            latency(*([GOOD] * 99 + [dataclasses.replace(GOOD, compute_ns=33_000 * US)]) * 7),
            {},
            [],
        ),
        (latency(*[GOOD] * 20, warmup_ended="time limit"), {}, ["warm-up"]),
        (latency(*[GOOD] * 20, complete=False), {}, ["cut short"]),
        (latency(*[GOOD] * 20), {"states": [state(), state(1100.0), state()]}, ["clock fell"]),
        (latency(*[GOOD] * 20), {"states": [state(), state(1130.0), state()]}, []),
        (latency(*[GOOD] * 20), {"states": [state(None), UNKNOWN, state(), UNKNOWN]}, []),
        (latency(*[GOOD] * 20), {"states": [UNKNOWN, state(), state(None), state(1.0)]}, ["clock fell"]),
        (
            latency(*[GOOD] * 20),
            {"states": [state(), state(throttling=("GPU idle", "software power cap")), state()]},
            ["throttled"],
        ),
        (latency(*[GOOD] * 20), {"states": [state(throttling=("application clocks setting",))]}, []),
        (latency(*[GOOD] * 20), {"states": [heat(90.9, GPU=93.0), heat(70.0, GPU=93.0)]}, []),
        (latency(*[GOOD] * 20), {"states": [heat(91.0, GPU=93.0), heat(70.0, GPU=93.0)]}, ["hot"]),
        (latency(*[GOOD] * 20), {"states": [heat(120.0)]}, []),
        (latency(*[GOOD] * 20), {"states": [state(power_mode="0 MAXN")] * 2}, []),
        (
            latency(*[GOOD] * 20),
            {"states": [state(power_mode="0 MAXN"), state(power_mode="2 15W")]},
            ["power mode"],
        ),
        (
            latency(*[GOOD] * 20),
            {"states": [state(power_limit_mw=70_000), state(power_limit_mw=50_000)]},
            ["power mode"],
        ),
        # Dynamic Boost of a laptop moves the limit all the time.
        (
            latency(*[GOOD] * 20),
            {"states": [state(power_limit_mw=115_000), state(power_limit_mw=118_500)]},
            [],
        ),
        (latency(*[GOOD] * 20), {"states": [state(confidential=True)]}, ["confidential"]),
        (latency(*[GOOD] * 20), {"states": [held(0), held(9 * MS)]}, []),
        (latency(*[GOOD] * 20), {"states": [held(0), held(11 * MS)]}, ["throttled"]),
        (
            latency(*[GOOD] * 20),
            {"states": [held(0, throttling=("software power cap",)), held(9 * MS)]},
            [],  # the counter covers the snapshots
        ),
        (
            latency(*[GOOD] * 20),
            {"states": [held(0, throttling=("hardware slowdown",)), held(0)]},
            ["throttled"],
        ),
        (latency(*[GOOD] * 20), {"states": [state(held_ns={"power": 5 * US, "thermal": 7})] * 2}, []),
        (
            latency(*[GOOD] * 20),
            {
                "states": [
                    state(held_ns={"power": 0, "thermal": 7}),
                    state(held_ns={"power": 0, "thermal": 8}),
                ]
            },
            ["throttled"],
        ),
    ],
)
def test_each_rule_by_its_threshold(measured, options, expected):
    assert rules(measured, **options) == expected


@pytest.mark.parametrize(
    ("measured", "options", "hint"),
    [
        ([dataclasses.replace(GOOD, enqueue_ns=SECOND)] * 20, {}, "--cuda-graph, or a larger --batch"),
        (
            [dataclasses.replace(GOOD, enqueue_ns=SECOND)] * 20,
            {"cuda_graph": True},
            "the network is too small",
        ),
        (
            [GOOD, dataclasses.replace(GOOD, compute_ns=900 * US)] * 9,
            {},
            "--lock-gpu-clocks=tdp,tdp",
        ),
        (
            [GOOD, dataclasses.replace(GOOD, compute_ns=900 * US)] * 9,
            {"states": [state(), UNKNOWN]},
            "nvidia-smi --lock-gpu-clocks",
        ),
        (
            [GOOD, dataclasses.replace(GOOD, compute_ns=900 * US)] * 9,
            {"states": [UNKNOWN, MachineState(None, Frequency(1e3, 300.0, 1e3), None, {}, ())]},
            "sudo jetson_clocks",
        ),
    ],
)
def test_hints_fit_the_machine_and_how_it_was_measured(measured, options, hint):
    [found] = judge_validity(latency(*measured), on_gpu=True, **options).findings
    assert hint in found.hint


def test_on_a_cpu_nothing_is_invalid_and_the_variation_is_remarked():
    noisy = Latency((900_000, 1_100_000) * 50, 1, 20, "time limit", True)
    verdict = judge_validity(noisy, on_gpu=False, states=[state(), state(10.0)])
    assert verdict.valid and [found.rule for found in verdict.remarks] == ["warm-up", "unsteady"]
    assert verdict.remarks[1].reason.startswith("latency varies by")
    assert verdict.remarks[1].hint == "close other programs and lock the clocks"
    plain = verdict.as_dict()
    assert plain["valid"] and plain["findings"] == [] and plain["remarks"][0]["rule"] == "warm-up"


@pytest.mark.parametrize("part", ["h2d_ns", "d2h_ns"])
def test_long_copies_are_a_remark_as_in_trtexec(part):
    """GPU compute does not hold the copies."""
    verdict = judge_validity(latency(*[dataclasses.replace(GOOD, **{part: 500 * US})] * 20), on_gpu=True)
    assert verdict.valid and [found.rule for found in verdict.remarks] == ["transfer-bound"]


def test_the_limit_for_gpu_compute_is_not_applied_to_python_around_onnx_runtime():
    """On CUDA, end to end times vary with the host by more than the kernels do."""
    verdict = judge_validity(Latency((900_000, 1_100_000) * 50, 1, 20, "steady", True), on_gpu=True)
    assert verdict.valid and [found.rule for found in verdict.remarks] == ["unsteady"]


def test_a_clock_locked_low_is_remarked_and_valid():
    verdict = judge_validity(latency(*[GOOD] * 20), on_gpu=True, states=[state(900.0)] * 2)
    assert verdict.valid and "900 of at most 1600 MHz" in verdict.remarks[0].reason
    assert "clock" not in remarks(state(1200.0)) and "clock" in remarks(state(1199.0))  # three quarters
    assert "clock" not in remarks(MachineState(None, Frequency(900.0, None, None), None, {}, ()))


def remarks(*states):
    return {
        found.rule: found.reason
        for found in judge_validity(latency(*[GOOD] * 20), on_gpu=True, states=states).remarks
    }


def test_temperature_and_what_is_not_known_are_remarked():
    assert remarks(heat(61.0, GPU=93.0)) == {"temperature": "GPU reached 61 C and is throttled from 93 C"}
    assert "GPU reached 61 C" in remarks(heat(61.0))["temperature"]  # no limit of the wifi's heat
    two = state(temperatures={"CPU": 90.0, "GPU": 92.0}, limits_c={"CPU": 95.0, "GPU": 105.0})
    assert remarks(two) == {"temperature": "CPU reached 90 C and is throttled from 95 C"}  # 5 C are left
    orin = state(throttling=None, temperatures={"cpu-thermal": 48.5, "gpu-thermal": 46.0})
    assert remarks(orin, orin).keys() == {"temperature", "throttling"}
    assert remarks(orin, heat(61.0)).keys() == {"temperature"}, "known at least once"
    assert "cpu-thermal reached 48 C" in remarks(orin)["temperature"]
    assert remarks() == {}


def test_time_that_clocks_were_held_down_between_looks_is_told():
    states = [state(held_ns={"power": start * 10**6}) for start in (1000, 1012)]
    [found] = judge_validity(latency(*[GOOD] * 20), on_gpu=True, states=states).findings
    assert found.reason == "the GPU clock was reduced for 12.0 ms by the power limit"


def test_timed_sessions_are_asked_for_parts_and_looked_at_from_warm_to_the_end():
    clock, looks = FakeClock(), []
    sessions = {
        name: FakeTimedSession(lambda x: x, runs=[run], clock=clock)
        for name, run in (("a", GOOD), ("b", dataclasses.replace(GOOD, compute_ns=250 * US)))
    }
    found = measure_side_by_side(
        sessions,
        POOL,
        batch=2,
        min_samples=200,
        min_seconds=0,
        clock=clock,
        look=lambda: looks.append(clock.now_ns),
    )
    a = found["a"]
    # 200 runs queued, then 200 end to end, by the session's own time of 1 ms. Nobody looks at those.
    assert len(a.samples_ns) == len(a.parts.compute_ns) == 200 and len(looks) == 2 and looks[0] > 0
    assert looks[1] - looks[0] < 200 * MS < clock.now_ns - looks[1]
    assert set(a.samples_ns) == {MS} and a.throughput == pytest.approx(2 * 1e9 / (525 * US))
    assert list(a.series) == ["with transfers", "GPU compute", "end to end"]
    assert set(a.series["with transfers"]) == {525 * US} and set(a.steady_ns) == {500 * US}
    assert again(Latency, a.as_dict()) == a
    faster = compare(found["b"], a)
    assert faster.ratio == pytest.approx(0.5) and faster.outcome == "faster" and faster.rounds == 20


def test_the_machine_is_looked_at_every_second_and_the_run_after_that_is_not_counted():
    clock, looks = FakeClock(), []

    def look():
        looks.append(clock.now_ns)
        clock.now_ns += 3_000 * US

    session = FakeSession(lambda x: x, latencies_ns=[1_000 * US], clock=clock)
    found = measure_side_by_side({"": session}, POOL, batch=1, min_seconds=3.5, clock=clock, look=look)
    between = np.diff(looks)
    assert len(looks) == 5 and all(SECOND <= gap < 1.05 * SECOND for gap in between[:3])
    assert set(found[""].samples_ns) == {1_000 * US} and found[""].warmup >= 4


@pytest.mark.parametrize(("limit", "last"), [({}, ["look", 1.0]), ({"max_seconds": 0.5}, ["look"])])
def test_the_last_look_comes_right_after_the_last_run(limit, last):
    """Whatever progress does then, clocks fall meanwhile."""
    clock, told = FakeClock(), []
    session = FakeSession(lambda x: x, latencies_ns=[10_000 * US], clock=clock)
    options = {
        "min_seconds": 0.8,
        "min_samples": 50,
        "clock": clock,
        "look": lambda: told.append("look"),
        **limit,
    }
    measure_side_by_side({"": session}, POOL, batch=1, progress=told.append, **options)
    assert told[-len(last) :] == last and told.count("look") == 2


def test_a_difference_within_the_noise_is_not_shown_and_a_drift_that_hits_both_drops_out():
    def measured(factor, seed):
        random = np.random.default_rng(seed)
        drift = (1 + 0.5 * np.sin(np.arange(600) / 60)) * (1 + 0.02 * random.normal(size=600))
        times = (int(value) for value in 1e6 * factor * drift)
        return Latency(tuple(times), 1, 0, "steady", True)

    same = compare(measured(1.0, 1), measured(1.0, 2))
    assert same.outcome == "no difference shown" and same.interval.low < 1 < same.interval.high
    assert compare(measured(0.97, 1), measured(1.0, 2)).outcome == "faster"
    assert compare(measured(1.03, 1), measured(1.0, 2)).outcome == "slower"
    assert compare(Latency((1,) * 90, 1, 0, "steady", True), measured(1.0, 2)) is None
    assert compare(Latency((0,) * 100, 1, 0, "steady", True), measured(1.0, 2)) is None
    equal = Latency((5,) * 100, 1, 0, "steady", True)
    assert compare(equal, equal).outcome == "no difference shown"


def test_only_whole_turns_count_and_gpu_compute_if_both_report_it():
    timed = latency(*[GOOD] * 109)
    whole = Latency((1000 * US,) * 109, 1, 0, "steady", True)
    assert compare(timed, timed).rounds == compare(whole, whole).rounds == 10
    doubled = latency(*[dataclasses.replace(GOOD, compute_ns=1000 * US)] * 100)
    assert compare(doubled, timed).ratio == pytest.approx(2)
    end_to_end = timed.samples_ns[0] / (1000 * US)
    assert compare(timed, whole).ratio == pytest.approx(end_to_end)
    assert compare(whole, timed).ratio == pytest.approx(1 / end_to_end)


def test_a_session_without_parts_has_none():
    clock = FakeClock()
    session = FakeSession(lambda x: x, latencies_ns=itertools.repeat(US * 900, 1), clock=clock)
    found = measure_side_by_side({"": session}, POOL, batch=1, min_samples=20, min_seconds=0, clock=clock)
    assert found[""].parts is None and list(found[""].series) == ["end to end"]
