"""What a power sensor is, and what it says of itself. One that is absent is `Unsupported`, never 0."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Clock = Callable[[], int]
"""Nanoseconds, monotonic."""
Sleep = Callable[[float], object]
"""Waits that many seconds."""

Quantity = Literal["power_mw", "energy_mj"]
"""What a sensor gives: power at a moment, or energy counted up since some moment."""

# Linux: CLOCK_MONOTONIC, one for the whole system, so stamps of two processes compare (clock_gettime(2)).
monotonic_ns: Clock = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the monotonic clock."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Rail:
    """A supply line that is measured: its label as the kernel or driver gives it, and what hangs on it."""

    name: str
    covers: str


@dataclass(frozen=True, slots=True)
class Total:
    """What a sensor's rails add up to.

    Attributes:
        rails: names of the rails to add, none of them inside another; empty: no total on this board.
        covers: what the sum stands for, or why there is none.
    """

    rails: tuple[str, ...]
    covers: str


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How far a reading may be off, as far as anybody has said.

    Attributes:
        relative: share of the reading; None: nobody states it.
        resolution_mw: a reading's step; None: not known.
        basis: who says so.
    """

    relative: float | None
    resolution_mw: float | None
    basis: str

    def __str__(self) -> str:
        within = "no uncertainty stated" if self.relative is None else f"within {self.relative:.0%}"
        return within + (f", in steps of {self.resolution_mw:g} mW" if self.resolution_mw else "")


@dataclass(frozen=True, slots=True)
class SensorInfo:
    """What a sensor says of itself.

    Attributes:
        name: "ina", "nvml-instant", "rapl" and so on.
        quantity: what its values are.
        rails: in the order of its values.
        total: which of them make the whole.
        rate_hz: at which it renews its values by itself; None: not known.
        window_ns: over which it averages; 0: not, or not known.
        uncertainty: of each rail.
        notes: what a reader of its figures must know.
        drivers: of the kernel through which its values come, one a kind of chip: "ina3221", "ina3221x",
            "ina238", "intel-rapl"; empty where the name tells it all.
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
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A sensor that cannot be read here, why, and what mends it: empty where nothing does."""

    sensor: str
    reason: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading.

    Attributes:
        stamp_ns: the middle of the reading, by the sensor's clock.
        values: one a rail, in mW or mJ (negative where a sensor has an offset); None: not read this time.
    """

    stamp_ns: int
    values: tuple[float | None, ...]


class Sensor(Protocol):
    """Anything that can be asked for power or energy, again and again."""

    @property
    def info(self) -> SensorInfo:
        """What it says of itself."""

    def read(self) -> Sample:
        """One reading of all rails. What cannot be read is None; nothing is raised."""

    def close(self) -> None:
        """Let go of what it holds."""


Channel = Callable[[], "float | None"]
"""Reads one rail, in mW or mJ; None: it could not."""


class PolledSensor:
    """A sensor made of one function a rail; tests make theirs with it.

    Args:
        info: what it says of itself.
        channels: in the order of the rails.
        clock: nanoseconds, monotonic.
        close: called once when it is let go.
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
        """What it says of itself."""
        return self._info

    def read(self) -> Sample:
        """One reading of all rails, one after the other."""
        start = self._clock()
        values = tuple(channel() for channel in self._channels)
        return Sample((start + self._clock()) // 2, values)

    def close(self) -> None:
        """Let go of what it holds."""
        self._close()


Read = Callable[[Path], str]
"""A small file's content, stripped; raises OSError."""


def read_text(path: Path) -> str:
    """A small file's content, without the white space around it."""
    return path.read_text(encoding="utf-8", errors="replace").strip()


def integer(read: Read, path: Path) -> int | None:
    """The whole number a file holds, or None: no file, not allowed, no number."""
    try:
        return int(read(path))
    except (OSError, ValueError):
        return None


def leave_to_read(*files: Path | str) -> str:
    """A command that lets everybody read files of the kernel's, and so cnnx as whoever runs it.

    By sudo cnnx itself would not be found in a virtual environment, and leave files of root's in bundles.
    """
    return f"sudo chmod a+r {' '.join(map(str, files))}  # until the next boot"


def label(read: Read, path: Path) -> str | None:
    """The name a file holds, or None."""
    try:
        return read(path) or None
    except OSError:
        return None
