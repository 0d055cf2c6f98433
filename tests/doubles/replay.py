"""A sampler whose readings are computed from the time: for rehearsals and tests, no process and no sensor."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from cnnx.errors import EnvironmentLacks
from cnnx.measure.power.sampler import DEFAULT_HZ
from cnnx.measure.power.sensors.sensor import Clock, Sample, SensorInfo
from cnnx.measure.power.trace import Trace


class Replay:
    """Samples that a sensor would have given, at a steady rate from entry until now.

    Args:
        info: of the sensor played.
        values_at: what it reads at a moment, one value a rail.
        clock: nanoseconds; what it shows counts as now.
        rate_hz: samples a second.
        dies_ns: a moment after which it behaves as a dead process does; None: never.
    """

    def __init__(
        self,
        info: SensorInfo,
        values_at: Callable[[int], tuple[float | None, ...]],
        *,
        clock: Clock,
        rate_hz: float = DEFAULT_HZ,
        dies_ns: int | None = None,
    ) -> None:
        self._info, self._values_at, self._clock = info, values_at, clock
        self._rate_hz, self._dies_ns = rate_hz, dies_ns
        self._samples: list[Sample] = []
        self._due = 0

    def __enter__(self) -> Replay:
        self._due = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def check(self) -> None:
        """Raise EnvironmentLacks once it is dead."""
        if self._dies_ns is not None and self._clock() >= self._dies_ns:
            raise EnvironmentLacks("the power sampler ended during the measurement (replayed)")

    def trace(self) -> Trace:
        """All samples from entry until now; raises EnvironmentLacks once it is dead."""
        self.check()
        period = int(1e9 / self._rate_hz)
        while self._due <= self._clock():
            self._samples.append(Sample(self._due, self._values_at(self._due)))
            self._due += period
        return Trace(self._info, self._rate_hz, tuple(self._samples))
