"""Recorded power or energy readings, and their integral over a time span."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from cnnx.errors import UsageError
from cnnx.measure.power.sensors.sensor import Sample, SensorInfo

Hertz = Annotated[float, Meta(gt=0, le=1e6, description="a rate in Hz, above 0")]
# Samples further apart than this number of periods have a gap between them.
_GAP = 1.5


@dataclass(frozen=True, slots=True)
class TraceRows:
    """A trace as stored in records: one row per sample with a timestamp and a value or null per rail."""

    sensor: SensorInfo
    asked_hz: Hertz
    samples: tuple[tuple[int | float | None, ...], ...]

    def __post_init__(self) -> None:
        width, before = 1 + len(self.sensor.rails), -math.inf
        for index, (stamp, *values) in enumerate(row or (None,) for row in self.samples):
            if not isinstance(stamp, int) or len(values) != width - 1:
                raise ValueError(f"samples[{index}] needs a timestamp and {width - 1} values")
            if stamp < before:
                raise ValueError(f"samples[{index}] is earlier than the previous sample")
            before = stamp
        unknown = set(self.sensor.total.rails) - {rail.name for rail in self.sensor.rails}
        if unknown:
            raise ValueError(f"sensor.total.rails names unknown rails: {sorted(unknown)}")

    def trace(self) -> Trace:
        """Convert to a `Trace`."""
        samples = (Sample(int(stamp or 0), tuple(values)) for stamp, *values in self.samples)
        return Trace(self.sensor, self.asked_hz, tuple(samples))


@dataclass(frozen=True, slots=True)
class Trace:
    """Samples recorded by a sampler. Everything else is derived from them.

    Attributes:
        sensor: the sensor that was read.
        asked_hz: requested sampling rate.
        samples: samples in chronological order.
    """

    sensor: SensorInfo
    asked_hz: float
    samples: tuple[Sample, ...]

    @property
    def achieved_hz(self) -> float | None:
        """Samples per second over the whole trace; None for fewer than two samples."""
        if len(self.samples) < 2:
            return None
        return (len(self.samples) - 1) * 1e9 / (self.samples[-1].stamp_ns - self.samples[0].stamp_ns)

    @property
    def gaps_ns(self) -> tuple[tuple[int, int], ...]:
        """Timestamps around each gap, where samples are more than 1.5 periods apart."""
        limit = _GAP * 1e9 / self.asked_hz
        stamps = [sample.stamp_ns for sample in self.samples]
        return tuple(
            (before, after) for before, after in itertools.pairwise(stamps) if after - before > limit
        )

    @property
    def missed(self) -> int:
        """Number of samples missing in the gaps."""
        period = 1e9 / self.asked_hz
        return sum(round((after - before) / period) - 1 for before, after in self.gaps_ns)

    @property
    def failed(self) -> dict[str, int]:
        """Number of failed readings by rail; rails without failures are omitted."""
        counts = {
            rail.name: sum(sample.values[index] is None for sample in self.samples)
            for index, rail in enumerate(self.sensor.rails)
        }
        return {name: count for name, count in counts.items() if count}

    def energy_mj(self, rails: Sequence[str], start_ns: int, end_ns: int) -> float:
        """Total energy of rails over a span: the trapezoidal integral of power, or the counter difference.

        Values at the ends are interpolated between the two nearest samples.

        Raises:
            UsageError: no rails, an unknown rail, or samples that do not cover the whole span.
        """
        return self._energy_mj(self._points(rails), start_ns, end_ns)

    def power_mw(self, rails: Sequence[str], start_ns: int, end_ns: int) -> float:
        """Mean total power of rails over a span; raises the errors of `energy_mj`."""
        if end_ns <= start_ns:
            what = f"the span from {start_ns} to {end_ns} ns is empty"
            raise UsageError(what, hint="pass an end after the start")
        return self.energy_mj(rails, start_ns, end_ns) * 1e9 / (end_ns - start_ns)

    def powers_mw(
        self, rails: Sequence[str], start_ns: int, end_ns: int, *, window_ns: int
    ) -> tuple[float, ...]:
        """Mean power in each complete window of a span; raises the errors of `energy_mj`."""
        points = self._points(rails)
        borders = range(start_ns, end_ns + 1, window_ns)
        return tuple(
            self._energy_mj(points, before, after) * 1e9 / window_ns
            for before, after in itertools.pairwise(borders)
        )

    def as_dict(self) -> dict[str, Any]:
        """The sensor, and samples as [stamp_ns, value, ...], as plain data."""
        return {
            "sensor": self.sensor.as_dict(),
            "asked_hz": self.asked_hz,
            "samples": [[sample.stamp_ns, *sample.values] for sample in self.samples],
        }

    def _energy_mj(self, points: list[tuple[int, float]], start_ns: int, end_ns: int) -> float:
        start, end = _value_at(points, start_ns), _value_at(points, end_ns)
        if self.sensor.quantity == "energy_mj":
            return end - start
        inner = points[_index(points, start_ns + 1) : _index(points, end_ns)]
        line = [(start_ns, start), *inner, (end_ns, end)]
        return sum(
            (after - before) * 1e-9 * (power_before + power_after) / 2
            for (before, power_before), (after, power_after) in itertools.pairwise(line)
        )

    def _points(self, rails: Sequence[str]) -> list[tuple[int, float]]:
        """(timestamp, sum over rails) of the samples with values for all rails."""
        indices = {rail.name: index for index, rail in enumerate(self.sensor.rails)}
        if not rails or not set(rails) <= indices.keys():
            raise UsageError(
                f"the power sensor {self.sensor.name} cannot measure {', '.join(rails) or 'without a rail'}",
                hint=f"choose from its rails: {', '.join(indices)}",
            )
        points = []
        for sample in self.samples:
            values = [sample.values[indices[rail]] for rail in rails]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                points.append((sample.stamp_ns, sum(known)))
        return points


def _index(points: list[tuple[int, float]], stamp_ns: int) -> int:
    """Index of the first point at or after a time."""
    return bisect.bisect_left(points, (stamp_ns, float("-inf")))


def _value_at(points: list[tuple[int, float]], stamp_ns: int) -> float:
    after = _index(points, stamp_ns)
    if after < len(points) and points[after][0] == stamp_ns:
        return points[after][1]
    if after in (0, len(points)):
        what = "the power samples do not cover the whole requested span"
        raise UsageError(what, hint="choose a span within the trace, or measure again")
    (t0, v0), (t1, v1) = points[after - 1], points[after]
    return v0 + (v1 - v0) * (stamp_ns - t0) / (t1 - t0)
