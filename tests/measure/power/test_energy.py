from __future__ import annotations

import dataclasses
import itertools

import pytest

from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.measure.power import (
    EnergyMeasurement,
    EnergyRows,
    Plan,
    SamplerCost,
    SensorInfo,
    cost_seconds,
    cost_turns,
    measure_energy,
    sampler_cost,
)
from cnnx.measure.power.sensors.sensor import Quantity, Rail, Total, Uncertainty
from cnnx.pipeline.bench.energy_use import total_and_rails
from tests.doubles.rehearsal import MS, SECOND, Machine
from tests.doubles.replay import Replay
from tests.inputs.again import again


def info(
    *,
    quantity: Quantity = "power_mw",
    total: tuple[str, ...] = ("VDD_IN",),
    relative: float | None = None,
    window_ns: int = 0,
) -> SensorInfo:
    return SensorInfo(
        name="test",
        quantity=quantity,
        rails=(Rail("VDD_IN", "module input"), Rail("VDD_SOC", "SoC")),
        total=Total(total, "module input" if total else "no total on this board: a test"),
        rate_hz=None,
        window_ns=window_ns,
        uncertainty=Uncertainty(relative, None, "a test"),
    )


def measured(machine: Machine, sensor: SensorInfo | None = None, **plan: float | None) -> EnergyMeasurement:
    sensor = sensor or info()
    read = machine.power if sensor.quantity == "power_mw" else machine.counter
    replay = Replay(sensor, lambda stamp: (read(stamp), 100.0), clock=machine.clock)
    return measure_energy(machine.load, replay, plan=Plan(**plan), clock=machine.clock, sleep=machine.sleep)


@pytest.mark.parametrize("quantity", ["power_mw", "energy_mj"])
def test_back_to_back_energy_is_what_the_machine_took(quantity):
    """9 W for 10 ms for two inferences: 45 mJ each, 30 of them above the 3 W of rest."""
    result = measured(Machine(), info(quantity=quantity))
    energy = result.energy()
    assert result.warmup_ended == "steady" and result.beside is None and result.deviations == {}
    assert (energy.rails, energy.covers) == (("VDD_IN",), "module input")
    assert energy.gross_mj == pytest.approx(45, rel=0.01)
    assert energy.net_mj == pytest.approx(30, rel=0.01)
    assert result.load.span.seconds >= 30
    assert result.load.inferences == 2 * result.load.calls
    assert energy.gross.low <= energy.gross_mj <= energy.gross.high
    assert again(EnergyRows, result.as_dict()).measurement() == result


@pytest.mark.parametrize("quantity", ["power_mw", "energy_mj"])
def test_at_a_cameras_rate_rest_between_frames_counts_as_gross_and_not_as_net(quantity):
    """30 frames a second of 10 ms each: 3 W + 30 % of 6 W = 4.8 W, 80 mJ an inference, 30 mJ net."""
    result = measured(Machine(), info(quantity=quantity), rate=30)
    energy = result.energy()
    assert result.load.calls == pytest.approx(900, abs=1)
    assert result.load.dropped == 0
    assert energy.gross_mj == pytest.approx(80, rel=0.01)
    assert energy.net_mj == pytest.approx(30, rel=0.01)


def test_a_load_slower_than_the_camera_drops_frames():
    result = measured(Machine(work_ms=40), rate=30)
    # Each call takes more than one period of 33 ms, so every other frame is lost.
    assert result.load.dropped == result.load.calls == pytest.approx(450, abs=1)
    assert result.doubts == (f"{result.load.dropped} frames dropped, as the load is slower than the rate",)


def test_the_load_counts_only_once_it_is_warm():
    """Power climbs from 6 to 9 W within 40 s, as leakage does with temperature."""
    result = measured(Machine(work_mw=lambda s: 6000 + 3000 * min(1.0, s / 40)))
    assert result.warmup_ended == "steady"
    assert 40 <= result.warmup.seconds <= 62
    assert result.energy().gross_mj == pytest.approx(45, rel=0.01)


def test_a_load_that_never_settles_says_so():
    result = measured(Machine(work_mw=lambda s: 6000 + 40 * s), warmup_s=60.0)
    assert result.warmup_ended == "time limit"
    assert result.doubts == ("power had not settled when the measurement began",)


def test_missing_samples_and_failed_readings_are_told():
    machine = Machine()
    result = measured(machine)
    assert result.doubts == ()
    start = result.load.span.start_ns
    samples = [one for one in result.trace.samples if not 5 < (one.stamp_ns - start) / SECOND < 8]
    samples[7] = dataclasses.replace(samples[7], values=(None, 1.0))
    torn = dataclasses.replace(result, trace=dataclasses.replace(result.trace, samples=tuple(samples)))
    gap, failed = torn.doubts
    assert gap.startswith("1 gaps between samples under load, the longest of 3.0")
    assert failed == f"failed readings: 1 of VDD_IN (of {len(samples)})"
    for rest in (result.idle_before, result.idle_after):  # a gap beside the load is no doubt
        rested = rest.start_ns + 2 * SECOND
        kept = tuple(one for one in result.trace.samples if not 0 < one.stamp_ns - rested < SECOND)
        assert kept != result.trace.samples
        assert dataclasses.replace(result, trace=dataclasses.replace(result.trace, samples=kept)).doubts == ()
    slow = dataclasses.replace(result.trace, samples=result.trace.samples[::6])
    assert "power was sampled at 7.8 Hz, below 10 Hz" in dataclasses.replace(result, trace=slow).doubts


def test_a_sensor_slower_than_we_ask_it_is_told():
    slow = measured(Machine(), dataclasses.replace(info(), rate_hz=5.0))
    assert slow.doubts == ("the sensor updates its values at 5.0 Hz, below 10 Hz",)
    assert measured(Machine(), dataclasses.replace(info(), rate_hz=10.0)).doubts == ()


def test_drift_of_rest_and_the_sensors_uncertainty_widen_the_interval():
    steady = measured(Machine()).energy()
    # Rest takes 3 W before and 4 W after: net is 5.5 W +- 0.5 W.
    drifted = measured(Machine(idle_mw=lambda s: 3000.0 if s < 20 else 4000.0)).energy()
    assert steady.net.high - steady.net.low < 0.01 * steady.net_mj
    assert (drifted.idle_before_mw, drifted.idle_after_mw) == (pytest.approx(3000), pytest.approx(4000))
    assert drifted.net_mj == pytest.approx(27.5, rel=0.01)
    assert drifted.net.low == pytest.approx(25, rel=0.02)
    assert drifted.net.high == pytest.approx(30, rel=0.02)
    stated = measured(Machine(), info(relative=0.05)).energy()
    assert stated.gross.low == pytest.approx(45 * 0.95, rel=0.01)
    assert stated.gross.high == pytest.approx(45 * 1.05, rel=0.01)
    assert "widened by the sensor's 5%" in stated.basis
    assert "calibration is not included" in steady.basis


def test_the_steps_of_every_rail_in_a_sum_widen_the_interval():
    """VDD_SOC is steady: half a step of 20 mW a rail, over the 5 ms of an inference."""
    coarse = dataclasses.replace(info(), uncertainty=Uncertainty(None, 20.0, "a test"))
    for rails in (["VDD_IN"], ["VDD_IN", "VDD_SOC"]):
        plain, stepped = (measured(Machine(), sensor).energy(rails) for sensor in (info(), coarse))
        wider = 0.010 * 5 * len(rails)
        assert stepped.gross.low == pytest.approx(plain.gross.low - wider, abs=1e-6)
        assert stepped.gross.high == pytest.approx(plain.gross.high + wider, abs=1e-6)


def test_a_load_whose_power_wanders_has_a_wider_interval():
    wandering = measured(Machine(work_mw=lambda s: 9000 + 90 * (int(s) % 3 - 1))).energy()
    assert 0.001 < (wandering.gross.high - wandering.gross.low) / wandering.gross_mj < 0.02


def test_without_a_total_there_is_no_energy_but_that_of_named_rails():
    result = measured(Machine(), info(total=()))
    assert result.energy() is None
    assert result.trace.sensor.total.covers == "no total on this board: a test"
    named = result.energy(["VDD_SOC"])
    assert named.covers == "SoC" and named.power_mw == pytest.approx(100)
    with pytest.raises(UsageError, match="cannot measure VDD_CPU"):
        result.energy(["VDD_CPU"])


def test_a_counter_that_stands_still_under_load_is_no_energy_of_zero():
    """A virtual machine's zones may be there and never move."""
    result = measured(Machine(), info(quantity="energy_mj"))
    assert result.energy(["VDD_IN"]).gross_mj > 0
    with pytest.raises(UsageError, match="the energy counter did not change under load: VDD_SOC"):
        result.energy(["VDD_IN", "VDD_SOC"])  # half of a sum is no sum
    total, no_total, rails = total_and_rails(result)
    assert total.rails == ("VDD_IN",) and no_total == "" and [rail.rails for rail in rails] == [("VDD_IN",)]
    dead = Machine(work_mw=lambda _: 0.0, idle_mw=lambda _: 0.0)
    total, no_total, rails = total_and_rails(measured(dead, info(quantity="energy_mj")))
    assert (total, rails) == (None, ()) and "the energy counter did not change" in no_total


def test_a_sensor_that_averages_is_waited_for():
    result = measured(Machine(), info(window_ns=SECOND))
    assert (result.idle_after.start_ns - result.load.span.end_ns) / SECOND >= 3


@pytest.mark.parametrize("seconds", [1, 20, 55, 75])
def test_a_sampler_that_dies_ends_the_measurement(seconds):
    machine = Machine()
    replay = Replay(info(), lambda _: (1.0, 1.0), clock=machine.clock, dies_ns=seconds * SECOND)
    with pytest.raises(EnvironmentLacks, match="ended during the measurement"):
        measure_energy(machine.load, replay, clock=machine.clock, sleep=machine.sleep)


def test_a_sampler_that_hangs_is_an_error():
    machine = Machine()
    stopped = Replay(info(), lambda _: (1.0, 1.0), clock=lambda: min(machine.now, 60 * SECOND))
    with pytest.raises(EnvironmentLacks, match="hangs"):
        measure_energy(machine.load, stopped, clock=machine.clock, sleep=machine.sleep)


@pytest.mark.parametrize(
    "plan", [{"load_s": 29}, {"idle_s": 4}, {"rate": 0}, {"rate": -1}], ids=lambda plan: str(*plan)
)
def test_measurements_too_short_to_mean_anything_are_refused(plan):
    with pytest.raises(UsageError):
        Plan(**plan)


@pytest.mark.parametrize("done", [0, -1, None, 1.5])
def test_a_load_that_does_not_say_what_it_did_is_refused(done):
    machine = Machine()
    machine.load = lambda: done
    with pytest.raises(UsageError, match="not its number of inferences"):
        measured(machine)


def test_the_samplers_cost_is_measured_in_alternating_turns():
    """Work takes 5 % longer while the sampler runs, and all of it 1 % longer each turn."""
    machine, running, order = Machine(), list[int](), list[bool]()

    class Costly(Replay):
        def __enter__(self) -> Costly:
            running.append(1)
            super().__enter__()
            return self

        def __exit__(self, *_: object) -> None:
            running.pop()

    def run() -> None:
        order.append(bool(running))
        machine.now += int(50 * MS * 1.01 ** (len(order) // 22) * (1.05 if running else 1.0))

    told: list[tuple[int, int]] = []
    cost = sampler_cost(
        run,
        lambda: Costly(info(), lambda _: (1.0, 1.0), clock=machine.clock),
        clock=machine.clock,
        progress=lambda *done: told.append(done),
    )
    assert cost.ratio == pytest.approx(1.05, abs=0.001)
    assert cost.interval.low <= cost.ratio <= cost.interval.high
    assert order[:11] == [False] * 11  # ten runs are half a second; one before is not counted
    sides = [sampled for sampled, _ in itertools.groupby(order)]
    assert sides == [False, True] * 5 + [False]
    assert told == [(turn, 10) for turn in range(11)]
    assert again(SamplerCost, cost.as_dict()) == cost
    with pytest.raises(UsageError):
        sampler_cost(run, lambda: Costly(info(), lambda _: (1.0,), clock=machine.clock), turns=1)


@pytest.mark.parametrize(
    ("run_ms", "runs", "turns"), [(0.03, 16_667, 10), (10, 50, 10), (200, 3, 10), (2000, 1, 7), (6400, 1, 0)]
)
def test_a_side_of_the_samplers_cost_lasts_half_a_second_or_a_run_and_the_whole_a_minute(run_ms, runs, turns):
    assert cost_turns(run_ms / 1000) == turns
    assert cost_seconds(run_ms / 1000) <= 60
    machine = Machine(work_ms=run_ms)
    replay = Replay(info(), lambda _: (1.0, 1.0), clock=machine.clock)
    sampler_cost(machine.load, lambda: replay, turns=2, clock=machine.clock)
    assert len(machine.starts) == 4 * (1 + runs)
    assert machine.now / SECOND <= cost_seconds(run_ms / 1000) or turns == 0
