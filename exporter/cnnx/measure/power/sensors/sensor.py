"""Interface and metadata of power sensors. A missing sensor is `Unsupported`, never 0."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cnnx.machine.kernel import integer_of

Clock = Callable[[], int]
"""Monotonic clock in nanoseconds."""
Sleep = Callable[[float], object]
"""Waits for a number of seconds."""

Quantity = Literal["power_mw", "energy_mj"]
"""Values of a sensor: current power, or an energy counter."""

# CLOCK_MONOTONIC is system-wide on Linux, so timestamps of two processes compare (clock_gettime(2)).
monotonic_ns: Clock = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Span:
    """A time span on the monotonic clock."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Rail:
    """A measured supply line: its label from the kernel or driver, and what it supplies."""

    name: str
    covers: str


@dataclass(frozen=True, slots=True)
class Total:
    """The total of a sensor's rails.

    Attributes:
        rails: names of the rails to add, none part of another; empty if the board has no total.
        covers: what the sum covers, or why there is none.
    """

    rails: tuple[str, ...]
    covers: str


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Stated uncertainty of a reading.

    Attributes:
        relative: share of the reading; None if not stated.
        resolution_mw: step size of a reading; None if unknown.
        basis: source of the uncertainty.
    """

    relative: float | None
    resolution_mw: float | None
    basis: str

    def __str__(self) -> str:
        within = "no uncertainty stated" if self.relative is None else f"within {self.relative:.0%}"
        return within + (f", in steps of {self.resolution_mw:g} mW" if self.resolution_mw else "")


@dataclass(frozen=True, slots=True)
class SensorInfo:
    """Metadata of a sensor.

    Attributes:
        name: "ina", "nvml-instant", "rapl" and so on.
        quantity: quantity of its values.
        rails: rails in the order of its values.
        total: rails that add up to the total.
        rate_hz: update rate of its values; None if unknown.
        window_ns: averaging window; 0 if none or unknown.
        uncertainty: uncertainty of each rail.
        notes: remarks for readers of its values.
        drivers: kernel drivers of its values, one per kind of chip: "ina3221", "ina3221x", "ina238",
            "intel-rapl"; empty if the name is sufficient.
    """

    name: str
    quantity: Quantity
    rails: tuple[Rail, ...]
    total: Total
    rate_hz: float | None
    window_ns: int
    uncertainty: Uncertainty
    notes: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The metadata as plain data for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A sensor that cannot be read here, with the reason and a hint; the hint may be empty."""

    sensor: str
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading.

    Attributes:
        stamp_ns: time of the middle of the reading, on the sensor's clock.
        values: one value per rail in mW or mJ, negative for a sensor with an offset; None if not read.
    """

    stamp_ns: int
    values: tuple[float | None, ...]


class Sensor(Protocol):
    """Interface of power and energy sensors."""

    @property
    def info(self) -> SensorInfo:
        """Metadata of the sensor."""

    def read(self) -> Sample:
        """Read all rails. Unreadable values are None; never raises."""

    def close(self) -> None:
        """Release resources."""


Channel = Callable[[], "float | None"]
"""Reads one rail in mW or mJ; None if it cannot be read."""


class PolledSensor:
    """A sensor with one function per rail; also used for test sensors.

    Args:
        info: metadata of the sensor.
        channels: functions in the order of the rails.
        clock: monotonic clock in nanoseconds.
        close: releases resources.
    """

    def __init__(
        self,
        info: SensorInfo,
        channels: Sequence[Channel],
        *,
        clock: Clock = monotonic_ns,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._info, self._channels, self._clock, self._close = info, tuple(channels), clock, close

    @property
    def info(self) -> SensorInfo:
        """Metadata of the sensor."""
        return self._info

    def read(self) -> Sample:
        """Read all rails, one after the other."""
        start = self._clock()
        values = tuple(channel() for channel in self._channels)
        return Sample((start + self._clock()) // 2, values)

    def close(self) -> None:
        """Release resources."""
        self._close()


Read = Callable[[Path], str]
"""Returns the stripped content of a small file; raises OSError."""


def read_text(path: Path) -> str:
    """Content of a small file, stripped of whitespace."""
    return path.read_text(encoding="utf-8", errors="replace").strip()


def integer(read: Read, path: Path) -> int | None:
    """The integer in a file; None if the file is not readable or has no integer."""
    try:
        return integer_of(read(path))
    except (OSError, UnicodeDecodeError):
        return None


def leave_to_read(*files: Path | str) -> str:
    """A command that makes kernel files readable for all users, so that cnnx can run without root.

    With sudo, cnnx would not be found in a virtual environment, and would create root-owned files in bundles.
    """
    return f"sudo chmod a+r {' '.join(map(str, files))}  # until the next boot"


def label(read: Read, path: Path) -> str | None:
    """The name in a file, or None."""
    try:
        return read(path) or None
    except OSError:
        return None
