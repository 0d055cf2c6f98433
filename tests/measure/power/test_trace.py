from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import time

import pytest

from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.measure.power import PolledSensor, Sample, SamplerProcess, SensorInfo, Trace, sample
from cnnx.measure.power.sensors.sensor import Quantity, Rail, Total, Uncertainty
from cnnx.measure.power.trace import TraceRows
from tests.doubles import power_trees as trees
from tests.inputs.again import again

SECOND = 1_000_000_000


def info(*rails: str, quantity: Quantity = "power_mw") -> SensorInfo:
    return SensorInfo(
        name="test",
        quantity=quantity,
        rails=tuple(Rail(name, "a test") for name in rails),
        total=Total(rails[:1], "a test"),
        rate_hz=None,
        window_ns=0,
        uncertainty=Uncertainty(None, None, "a test"),
    )


def power_mw(seconds: float) -> float:
    """Rest of 3 W, a load of 12 W from 20 s to 50 s, and a wave of 0.5 W that takes 0.8 s."""
    return 3000 + (9000 if 20 <= seconds < 50 else 0) + 500 * math.sin(2 * math.pi * seconds / 0.8)


def energy_mj(start: float, end: float) -> float:
    """Its integral."""
    wave = (
        500 * 0.8 / (2 * math.pi) * (math.cos(2 * math.pi * start / 0.8) - math.cos(2 * math.pi * end / 0.8))
    )
    return 3000 * (end - start) + 9000 * max(0, min(end, 50) - max(start, 20)) + wave


@pytest.mark.parametrize("rate_hz", [10, 47])
@pytest.mark.parametrize("span", [(20, 50), (0.5, 70), (20.3, 31.7)])
def test_a_replayed_trace_gives_its_known_energy(rate_hz, span):
    """Stamps jitter by up to 30 % of a period, one reading in 20 fails, three seconds are missing."""
    draw = random.Random(rate_hz)
    samples = []
    for number in range(72 * rate_hz):
        seconds = (number + draw.uniform(-0.3, 0.3)) / rate_hz
        if 60 < seconds < 63:
            continue
        power = power_mw(seconds) if draw.random() > 0.05 else None
        samples.append(Sample(int(seconds * SECOND), (power, 1.0)))
    trace = Trace(info("VDD_IN", "VDD_SOC"), rate_hz, tuple(samples))
    start, end = (int(border * SECOND) for border in span)
    assert trace.energy_mj(["VDD_IN"], start, end) == pytest.approx(energy_mj(*span), rel=0.01)
    both = trace.energy_mj(["VDD_IN", "VDD_SOC"], start, end)
    assert both == pytest.approx(energy_mj(*span) + (span[1] - span[0]), rel=0.01)

    assert trace.failed["VDD_IN"] == sum(one.values[0] is None for one in samples)
    assert "VDD_SOC" not in trace.failed
    assert any(before < 61 * SECOND < after for before, after in trace.gaps_ns)
    assert trace.missed >= 3 * rate_hz - 2
    assert trace.achieved_hz == pytest.approx(rate_hz * 69 / 72, rel=0.01)
    later = tuple(dataclasses.replace(one, stamp_ns=one.stamp_ns + 10**13) for one in samples)
    assert dataclasses.replace(trace, samples=later).achieved_hz == trace.achieved_hz
    assert again(TraceRows, trace.as_dict()).trace() == trace


def test_a_ramp_is_integrated_exactly_between_any_borders():
    """1 W more each second: t^2 / 2 joules."""
    trace = Trace(info("VDD_IN"), 10.0, tuple(Sample(i * SECOND // 10, (100.0 * i,)) for i in range(51)))
    for start, end in ((0, 5), (0.25, 0.27), (1.03, 4.99)):
        joules = (end**2 - start**2) / 2
        assert trace.energy_mj(["VDD_IN"], int(start * SECOND), int(end * SECOND)) == pytest.approx(
            joules * 1000
        )


def test_between_two_samples_power_is_on_the_line_between_these_two():
    trace = Trace(
        info("VDD_IN"), 1.0, tuple(Sample(i * SECOND, (p,)) for i, p in enumerate((0.0, 10.0, 0.0, 0.0)))
    )
    for start, end, millijoules in (
        (0.5, 1, 3.75),
        (1.5, 2, 1.25),
        (2.5, 3, 0),
        (0.5, 2.5, 8.75),
        (1.2, 1.4, 1.4),
    ):
        found = trace.energy_mj(["VDD_IN"], int(start * SECOND), int(end * SECOND))
        assert found == pytest.approx(millijoules, abs=1e-6)


def test_counters_are_subtracted_and_interpolated():
    samples = tuple(Sample(i * SECOND, (100.0 + 7 * i,)) for i in range(5))
    trace = Trace(info("package-0", quantity="energy_mj"), 1.0, samples)
    assert trace.energy_mj(["package-0"], SECOND // 2, 3 * SECOND) == pytest.approx(17.5)
    assert trace.powers_mw(["package-0"], 0, 4 * SECOND, window_ns=2 * SECOND) == pytest.approx((7, 7))
    assert (trace.gaps_ns, trace.missed, trace.failed) == ((), 0, {})


def test_negative_power_counts_as_it_is():
    trace = Trace(info("VDD_GPU"), 10.0, (Sample(0, (-300.0,)), Sample(SECOND, (-300.0,))))
    assert trace.energy_mj(["VDD_GPU"], 0, SECOND) == pytest.approx(-300)


def test_a_gap_is_more_than_one_and_a_half_periods():
    stamps = [0, 100, 250, 410, 870, 970]  # 1, 1.5, 1.6, 4.6 and 1 periods
    trace = Trace(info("VDD_IN"), 10.0, tuple(Sample(one * 1_000_000, (1.0,)) for one in stamps))
    assert [(before // 1_000_000, after // 1_000_000) for before, after in trace.gaps_ns] == [
        (250, 410),
        (410, 870),
    ]
    assert trace.missed == 1 + 4
    assert trace.achieved_hz == pytest.approx(5 / 0.97)


def test_one_sample_has_no_rate_and_two_have():
    one, two = Sample(0, (1.0,)), Sample(SECOND, (1.0,))
    assert Trace(info("VDD_IN"), 10.0, (one,)).achieved_hz is None
    slow = Trace(info("VDD_IN"), 0.5, (one, two))
    assert slow.achieved_hz == 1 and again(TraceRows, slow.as_dict()).trace() == slow


def test_power_is_energy_over_time_in_whole_windows():
    samples = tuple(Sample(i * SECOND, (10.0 * i, 1.0)) for i in range(8))
    trace = Trace(info("VDD_IN", "VDD_SOC"), 1.0, samples)
    assert trace.power_mw(["VDD_IN"], SECOND, 5 * SECOND) == pytest.approx(30)
    windows = trace.powers_mw(["VDD_IN", "VDD_SOC"], SECOND, 6 * SECOND, window_ns=2 * SECOND)
    assert windows == pytest.approx((21, 41))  # the fifth second is no whole window
    assert len(trace.powers_mw(["VDD_IN"], SECOND, 5 * SECOND, window_ns=2 * SECOND)) == 2
    assert len(trace.powers_mw(["VDD_IN"], SECOND, 5 * SECOND - 1, window_ns=2 * SECOND)) == 1


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (((0, 1.0), (5, 1.0, 2.0)), r"samples\[1\] needs a timestamp and 1 values"),
        (((0, 1.0), ()), r"samples\[1\] needs"),
        (((0.5, 1.0),), r"samples\[0\] needs"),
        (((5, 1.0), (5, 1.0), (4, 1.0)), r"samples\[2\] is earlier"),
    ],
)
def test_stored_samples_that_are_no_trace_are_refused(samples, said):
    with pytest.raises(ValueError, match=said):
        TraceRows(info("VDD_IN"), 10.0, samples)


def test_a_stored_total_of_rails_that_were_not_read_is_refused():
    with pytest.raises(ValueError, match=r"unknown rails: \['VDD_CPU'\]"):
        TraceRows(dataclasses.replace(info("VDD_IN"), total=Total(("VDD_CPU",), "a test")), 10.0, ())


def test_what_the_samples_do_not_tell_is_refused():
    trace = Trace(
        info("VDD_IN"), 10.0, (Sample(0, (1.0,)), Sample(SECOND, (1.0,)), Sample(2 * SECOND, (None,)))
    )
    for start, end in ((-1, SECOND), (0, 2 * SECOND)):
        with pytest.raises(UsageError, match="do not cover"):
            trace.energy_mj(["VDD_IN"], start, end)
    for rails in ([], ["VDD"], ["VDD_IN", "GPU"]):
        with pytest.raises(UsageError, match="cannot measure"):
            trace.energy_mj(rails, 0, SECOND)
    with pytest.raises(UsageError, match="span from 5 to 5 ns is empty"):
        trace.power_mw(["VDD_IN"], 5, 5)
    assert Trace(info("VDD_IN"), 10.0, ()).achieved_hz is None


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_sampling_keeps_its_rate_and_leaves_out_what_it_missed():
    clock, lines, waits = Clock(), list[str](), list[float]()

    def slow_once() -> float:
        clock.now += 350_000_000 if len(lines) == 3 else 2_000_000
        return 5.0

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        clock.now += int(seconds * SECOND)
        return len(lines) == 6

    sensor = PolledSensor(info("VDD_IN"), [slow_once], clock=clock)
    sample(sensor, lines.append, rate_hz=10, wait=wait, clock=clock)
    described, *rows = [json.loads(line) for line in lines]
    assert again(SensorInfo, described) == sensor.info
    # Periods of 100 ms from the start; the third reading took 350 ms, so the next is at 600 ms.
    assert [row[0] // 1_000_000 for row in rows] == [1, 101, 375, 601, 701]
    assert all(second >= 0 for second in waits)


def test_the_process_samples_until_it_is_left(tmp_path):
    """No time is tested: only that samples come, in order, by the clock that we read ourselves."""
    trees.orin_nx(tmp_path)
    with SamplerProcess("ina", root=tmp_path) as sampler:
        pid = sampler.pid
        while len((trace := sampler.trace()).samples) < 3:
            time.sleep(0.01)
    stamps = [one.stamp_ns for one in trace.samples]
    assert stamps == sorted(stamps)
    assert trace.sensor.total.rails == ("VDD_IN",)
    assert {one.values for one in trace.samples} == {(650.0, 2800.0, 655.0)}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_sampler_that_dies_is_an_error(tmp_path):
    trees.orin_nx(tmp_path)
    with SamplerProcess("ina", root=tmp_path) as sampler:
        os.kill(sampler.pid, signal.SIGKILL)
        os.waitid(os.P_PID, sampler.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(EnvironmentLacks, match=r"ended during the measurement \(exit code -9\)"):
            sampler.check()
        with pytest.raises(EnvironmentLacks, match="ended during the measurement"):
            sampler.trace()


def test_a_sensor_that_is_not_there_is_refused_with_its_reason(tmp_path):
    with pytest.raises(EnvironmentLacks, match="no INA3221 or INA238"):
        SamplerProcess("ina", root=tmp_path).__enter__()


def test_slow_sampling_is_refused():
    with pytest.raises(UsageError, match="5 Hz is too low"):
        SamplerProcess("ina", rate_hz=5)
