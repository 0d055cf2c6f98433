"""Current power of any sensor: of each rail, by which `cnnx doctor` shows that it works, or of the whole."""

from __future__ import annotations

import time

from cnnx.measure.power.sensors.sensor import Sensor, Sleep

# RAPL counters update every millisecond, NVML's more slowly; over a shorter span they may not change.
_COUNTER_SPAN_S = 0.3


def power_now(sensor: Sensor, *, sleep: Sleep = time.sleep) -> tuple[float | None, ...]:
    """Power of each rail in mW; for energy counters, the mean over 0.3 s.

    A value is None if the rail was not read, or its counter did not change, as in a virtual machine.

    Args:
        sleep: waits for a number of seconds.
    """
    first = sensor.read()
    if sensor.info.quantity == "power_mw":
        return first.values
    sleep(_COUNTER_SPAN_S)
    second = sensor.read()
    span_ns = second.stamp_ns - first.stamp_ns
    return tuple(
        None
        if before is None or after is None or span_ns <= 0 or after == before
        else (after - before) * 1e9 / span_ns
        for before, after in zip(first.values, second.values, strict=True)
    )


class TotalPower:
    """Power of the rails that make up the whole, read again and again.

    Args:
        sensor: a sensor whose info names these rails.
    """

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        names = [rail.name for rail in sensor.info.rails]
        self._places = [names.index(rail) for rail in sensor.info.total.rails]
        self._before: tuple[int, float] | None = None

    def __call__(self) -> float | None:
        """Power in mW now, or for an energy counter, the mean since the last call.

        None if a rail was not read, and for a counter at the first call or if it did not change.
        """
        sample = self.sensor.read()
        values = [sample.values[place] for place in self._places]
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not known:
            return None
        if self.sensor.info.quantity == "power_mw":
            return sum(known)
        before, self._before = self._before, (sample.stamp_ns, sum(known))
        if before is None or sample.stamp_ns <= before[0] or sum(known) <= before[1]:
            return None
        return (sum(known) - before[1]) * 1e9 / (sample.stamp_ns - before[0])
