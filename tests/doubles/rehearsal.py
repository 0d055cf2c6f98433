"""A machine whose power, and whose time, are made up: an energy pass on it takes seconds, not minutes."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable

import pytest

import cnnx
from cnnx.measure.power import Plan, Sampler, SensorInfo, Unsupported
from cnnx.measure.power.sensors.sensor import Rail, Total, Uncertainty
from cnnx.pipeline.bench import energy
from tests.doubles.replay import Replay

SECOND = 1_000_000_000
MS = 1_000_000


class Machine:
    """A machine with a clock of its own: work takes time and power, rest takes power.

    Args:
        work_ms: of one call of the load.
        work_mw: power meanwhile, given seconds since the first call.
        idle_mw: power at rest, given seconds since the start.
    """

    def __init__(
        self,
        *,
        work_ms: float = 10,
        work_mw: Callable[[float], float] = lambda _: 9000.0,
        idle_mw: Callable[[float], float] = lambda _: 3000.0,
    ) -> None:
        self.now = 0
        self.work_ns, self.work_mw, self.idle_mw = int(work_ms * MS), work_mw, idle_mw
        self.starts: list[int] = []

    def clock(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * SECOND) + 1

    def load(self) -> int:
        self.starts.append(self.now)
        self.now += self.work_ns
        return 2

    def power(self, stamp: int) -> float:
        last = bisect.bisect_right(self.starts, stamp) - 1
        if last >= 0 and stamp < self.starts[last] + self.work_ns:
            return self.work_mw((stamp - self.starts[0]) / SECOND)
        return self.idle_mw(stamp / SECOND)

    def counter(self, stamp: int) -> float:
        """Energy since the start, in mJ; for constant powers."""
        done = bisect.bisect_right(self.starts, stamp)
        busy = done * self.work_ns
        if done and stamp < self.starts[done - 1] + self.work_ns:
            busy -= self.starts[done - 1] + self.work_ns - stamp
        return (busy * self.work_mw(0) + (stamp - busy) * self.idle_mw(0)) / SECOND


class Ticking:
    """A clock that goes on by itself: each look at it takes 10 ms, so a run between two looks does too.

    The machine takes 3 W while it sleeps for long, and 8 W else.
    """

    def __init__(self, tick_ms: int = 10) -> None:
        self.now, self._tick = 0, tick_ms * 1_000_000
        self.rests: list[tuple[int, int]] = []

    def __call__(self) -> int:
        self.now += self._tick
        return self.now

    def sleep(self, seconds: float) -> None:
        start = self.now
        self.now += int(seconds * 1e9)
        if seconds >= 1:
            self.rests.append((start, self.now))

    def power(self, stamp: int) -> tuple[float, float]:
        return 3000.0 if any(start <= stamp <= end for start, end in self.rests) else 8000.0, 500.0


def info(name: str, *, total: bool = True) -> SensorInfo:
    rails = (Rail("VDD_IN", "module input"), Rail("VDD_SOC", "SoC, part of VDD_IN"))
    whole = Total(("VDD_IN",), "module input") if total else Total((), "no total on this board: a test")
    stated = Uncertainty(None, 40.0, "a test")
    return SensorInfo(name, "power_mw", rails, whole, None, 0, stated, notes=("rails of a test",))


def rehearsal(*, total: bool = True, rate: float | None = None, tick_ms: int = 10) -> cnnx.PowerPass:
    clock = Ticking(tick_ms)
    return cnnx.PowerPass(
        plan=Plan(rate=rate),
        sampler=lambda: Replay(info("ina", total=total), clock.power, clock=lambda: clock.now),
        clock=clock,
        sleep=clock.sleep,
    )


def failing(
    fails: Callable[[str], bool], power: cnnx.PowerPass, error: Exception
) -> tuple[cnnx.PowerPass, Callable[[cnnx.ProgressEvent], None]]:
    """A pass whose sampler does not start in some steps, and the listener that tells it the step."""
    steps: list[str] = []

    def sampler() -> Sampler:
        if fails(steps[-1]):
            raise error
        return power.sampler()

    return dataclasses.replace(power, sampler=sampler), lambda event: steps.append(event.step)


def no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose power nothing tells."""
    absent = [Unsupported("ina", "no INA3221 here"), Unsupported("rapl", "root alone")]
    monkeypatch.setattr(energy, "find_sensors", lambda root: absent)
