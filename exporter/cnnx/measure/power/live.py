"""Current power of any sensor, by which `cnnx doctor` shows that the sensor works."""

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
