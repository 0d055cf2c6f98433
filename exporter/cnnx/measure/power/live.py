"""Power at this moment, of any sensor: what `cnnx doctor` shows that a sensor lives by."""

from __future__ import annotations

import time

from cnnx.measure.power.sensors.sensor import Sensor, Sleep

# RAPL's counters move every millisecond, NVML's more slowly: over a shorter span its difference may be 0.
_COUNTER_SPAN_S = 0.3


def power_now(sensor: Sensor, *, sleep: Sleep = time.sleep) -> tuple[float | None, ...]:
    """One value a rail, in mW; of a counter of energy, the mean of 0.3 s.

    None: not read, or the counter stood still, as it does where nothing feeds it.

    Args:
        sleep: waits that many seconds.
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
