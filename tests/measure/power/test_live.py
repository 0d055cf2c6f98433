"""Power of the whole, read again and again, from sensors that are made up."""

from __future__ import annotations

import dataclasses

from cnnx.measure.power import PolledSensor
from cnnx.measure.power.live import TotalPower, power_now
from tests.doubles.rehearsal import info


def test_power_of_a_counter_is_the_mean_since_the_last_reading():
    """In mJ per second. While it stands still or is not read, there is no power."""
    readings = [(1, 10.0), (2, 16.0), (3, 16.0), (5, None), (6, 22.0), (6, 30.0), (8, 24.0)]
    now: list[tuple[int, float | None]] = []
    counter = dataclasses.replace(info("rapl"), quantity="energy_mj")
    power = TotalPower(
        PolledSensor(counter, [lambda: now[-1][1], lambda: 500.0], clock=lambda: now[-1][0] * 10**9)
    )
    found = []
    for reading in readings:
        now.append(reading)
        found.append(power())
    assert found == [None, 6.0, None, None, 2.0, None, None]


def test_power_of_a_monitor_is_the_sum_of_the_rails_that_make_up_the_whole():
    rails = {"VDD_IN": 4000.0, "VDD_SOC": 700.0}
    whole = dataclasses.replace(info("ina"), total=dataclasses.replace(info("ina").total, rails=tuple(rails)))
    power = TotalPower(PolledSensor(whole, [lambda: rails["VDD_IN"], lambda: rails["VDD_SOC"]]))
    assert power() == power() == 4700.0
    rails["VDD_SOC"] = None
    assert power() is None
    assert TotalPower(PolledSensor(info("ina"), [lambda: 0.0, lambda: None]))() == 0.0


def test_power_now_of_a_counter_needs_time_and_a_change():
    counter = dataclasses.replace(info("rapl"), quantity="energy_mj")
    now, energies = [0], [10.0]
    sensor = PolledSensor(counter, [lambda: energies[0], lambda: 7.0], clock=lambda: now[0])
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += 2 * 10**9
        energies[0] += 3.0

    assert power_now(sensor, sleep=sleep) == (1.5, None) and waits == [0.3]
    assert power_now(sensor, sleep=lambda _: None) == (None, None)
    monitor = PolledSensor(info("ina"), [lambda: 5.0, lambda: None])
    assert power_now(monitor, sleep=lambda _: waits.append("waited")) == (5.0, None) and len(waits) == 1
