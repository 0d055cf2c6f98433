"""A machine whose power, and whose time, are made up: an energy pass on it takes seconds, not minutes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

import cnnx
from cnnx.measure.power import Plan, Sampler, SensorInfo, Unsupported
from cnnx.measure.power.sensors.sensor import Rail, Total, Uncertainty
from cnnx.pipeline.bench import energy
from tests.doubles.replay import Replay


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
