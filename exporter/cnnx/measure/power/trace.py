"""A recorded series of power or energy readings, and its integral over a span of time."""

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
# Two samples further apart than this many periods have a gap between them.
_GAP = 1.5


@dataclass(frozen=True, slots=True)
class TraceRows:
    """A trace as records have it: a row a sample, its stamp first, then a value a rail or null."""

    sensor: SensorInfo
    asked_hz: Hertz
    samples: tuple[tuple[int | float | None, ...], ...]

    def __post_init__(self) -> None:
        width, before = 1 + len(self.sensor.rails), -math.inf
        for place, (stamp, *values) in enumerate(row or (None,) for row in self.samples):
            if not isinstance(stamp, int) or len(values) != width - 1:
                raise ValueError(f"samples[{place}] needs a stamp and {width - 1} values")
            if stamp < before:
                raise ValueError(f"samples[{place}] is earlier than the one before it")
            before = stamp
        unknown = set(self.sensor.total.rails) - {rail.name for rail in self.sensor.rails}
        if unknown:
            raise ValueError(f"sensor.total.rails names {sorted(unknown)}, and there is no such rail")

    def trace(self) -> Trace:
        """The trace itself."""
        samples = (Sample(int(stamp or 0), tuple(values)) for stamp, *values in self.samples)
        return Trace(self.sensor, self.asked_hz, tuple(samples))


@dataclass(frozen=True, slots=True)
class Trace:
    """What a sampler recorded. Raw samples are kept; all else is derived from them.

    Attributes:
        sensor: what was read.
        asked_hz: rate that the sampler was to keep.
        samples: in order of time.
    """

    sensor: SensorInfo
    asked_hz: float
    samples: tuple[Sample, ...]

    @property
    def achieved_hz(self) -> float | None:
        """Samples a second over the whole trace; None for fewer than two."""
        if len(self.samples) < 2:
            return None
        return (len(self.samples) - 1) * 1e9 / (self.samples[-1].stamp_ns - self.samples[0].stamp_ns)

    @property
    def gaps_ns(self) -> tuple[tuple[int, int], ...]:
        """(last before, first after) wherever samples are over 1.5 periods apart."""
        limit = _GAP * 1e9 / self.asked_hz
        stamps = [sample.stamp_ns for sample in self.samples]
        return tuple(
            (before, after) for before, after in itertools.pairwise(stamps) if after - before > limit
        )

    @property
    def missed(self) -> int:
        """Samples that are not there: those that gaps had room for."""
        period = 1e9 / self.asked_hz
        return sum(max(1, round((after - before) / period) - 1) for before, after in self.gaps_ns)

    @property
    def failed(self) -> dict[str, int]:
        """Readings that gave no value, by rail; rails without any are left out."""
        counts = {
            rail.name: sum(sample.values[place] is None for sample in self.samples)
            for place, rail in enumerate(self.sensor.rails)
        }
        return {name: count for name, count in counts.items() if count}

    def energy_mj(self, rails: Sequence[str], start_ns: int, end_ns: int) -> float:
        """Energy of some rails together over a span: trapezoids over power, or the difference of counters.

        At the borders values are interpolated between the two samples around them.

        Raises:
            UsageError: no rails, an unknown one, or samples do not reach over the whole span.
        """
        return self._energy_mj(self._points(rails), start_ns, end_ns)

    def power_mw(self, rails: Sequence[str], start_ns: int, end_ns: int) -> float:
        """Mean power of some rails together over a span; raises what `energy_mj` does."""
        if end_ns <= start_ns:
            raise UsageError("a mean needs a span of time")
        return self.energy_mj(rails, start_ns, end_ns) * 1e9 / (end_ns - start_ns)

    def powers_mw(
        self, rails: Sequence[str], start_ns: int, end_ns: int, *, window_ns: int
    ) -> tuple[float, ...]:
        """Mean power in each whole window of a span, one after the other; raises what `energy_mj` does."""
        points = self._points(rails)
        borders = range(start_ns, end_ns + 1, window_ns)
        return tuple(
            self._energy_mj(points, before, after) * 1e9 / window_ns
            for before, after in itertools.pairwise(borders)
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the sensor, and samples as [stamp_ns, value, ...]."""
        return {
            "sensor": self.sensor.as_dict(),
            "asked_hz": self.asked_hz,
            "samples": [[sample.stamp_ns, *sample.values] for sample in self.samples],
        }

    def _energy_mj(self, points: list[tuple[int, float]], start_ns: int, end_ns: int) -> float:
        start, end = _value_at(points, start_ns), _value_at(points, end_ns)
        if self.sensor.quantity == "energy_mj":
            return end - start
        inner = points[_place(points, start_ns + 1) : _place(points, end_ns)]
        line = [(start_ns, start), *inner, (end_ns, end)]
        return sum(
            (after - before) * 1e-9 * (power_before + power_after) / 2
            for (before, power_before), (after, power_after) in itertools.pairwise(line)
        )

    def _points(self, rails: Sequence[str]) -> list[tuple[int, float]]:
        """(stamp, sum over rails) of the samples in which all of them were read."""
        places = {rail.name: place for place, rail in enumerate(self.sensor.rails)}
        if not rails or not set(rails) <= places.keys():
            raise UsageError(
                f"{self.sensor.name} cannot tell the energy of {', '.join(rails) or 'no rail'}",
                mend=f"its rails: {', '.join(places)}",
            )
        points = []
        for sample in self.samples:
            values = [sample.values[places[rail]] for rail in rails]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                points.append((sample.stamp_ns, sum(known)))
        return points


def _place(points: list[tuple[int, float]], stamp_ns: int) -> int:
    """Of the first point that is not before a moment."""
    return bisect.bisect_left(points, (stamp_ns, float("-inf")))


def _value_at(points: list[tuple[int, float]], stamp_ns: int) -> float:
    after = _place(points, stamp_ns)
    if after < len(points) and points[after][0] == stamp_ns:
        return points[after][1]
    if after in (0, len(points)):
        raise UsageError("power samples do not reach over the whole span that was asked for")
    (t0, v0), (t1, v1) = points[after - 1], points[after]
    return v0 + (v1 - v0) * (stamp_ns - t0) / (t1 - t0)
