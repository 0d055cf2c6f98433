"""Windows of a soak: figures of some seconds of running, with the state of the machine meanwhile."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnx.machine.state import Frequency, MachineState
from cnnx.measure.machine_rules import THROTTLING
from cnnx.measure.samples import samples_needed

# Minimum and maximum number of windows, which usually take 5 s: what a soak keeps is bounded.
_LEAST, _MOST, _USUAL_S = 12, 2880, 5.0


def window_seconds(seconds: float) -> float:
    """Length of the windows of a soak of this length."""
    return max(min(_USUAL_S, seconds / _LEAST), seconds / _MOST)


@dataclass(frozen=True, slots=True)
class Window:
    """Some seconds of a soak.

    Attributes:
        start_ns: when it began, from the start of the soak.
        span_ns: how long it took.
        runs: number of runs, also of those whose time does not count.
        busy_ns: time for these runs, without reading the state of the machine.
        p50_ns: median time of a run.
        p99_ns: 99th percentile; None for too few runs.
        longest_ns: longest time of a run.
        state: the worst that was read: lowest clocks, highest temperatures, all reasons of throttling.
        readings: number of times that the state was read.
        throttled: number of those in which a limit reduced the GPU's clock; None if it cannot be read.
        power_mw: mean power; None if no sensor covers the device, or it was not read.
    """

    start_ns: int
    span_ns: int
    runs: int
    busy_ns: int
    p50_ns: int
    p99_ns: int | None
    longest_ns: int
    state: MachineState
    readings: int
    throttled: int | None
    power_mw: float | None

    def as_dict(self) -> dict[str, Any]:
        """The window as plain data for JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "state": self.state.as_dict()}


class OpenWindow:
    """A window that is being measured. It keeps every time until it is closed, and then only figures."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._times = array("q")
        self._runs = self._busy_ns = 0
        self._states: list[MachineState] = []
        self._powers: list[float] = []

    def add(self, times_ns: Sequence[int], *, runs: int, busy_ns: int) -> None:
        """Add runs."""
        self._times.extend(times_ns)
        self._runs += runs
        self._busy_ns += busy_ns

    def look(self, state: MachineState, power_mw: float | None) -> None:
        """Add the state of the machine, and its power."""
        self._states.append(state)
        if power_mw is not None:
            self._powers.append(power_mw)

    def close(self, origin_ns: int, now_ns: int) -> Window:
        """The window's figures; it must have runs and a state."""
        times = np.sort(np.frombuffer(self._times, np.int64))
        known = [state for state in self._states if state.throttling is not None]
        return Window(
            start_ns=self._start_ns - origin_ns,
            span_ns=now_ns - self._start_ns,
            runs=self._runs,
            busy_ns=max(1, self._busy_ns),
            p50_ns=_at(times, 0.5),
            p99_ns=_at(times, 0.99) if len(times) >= samples_needed(0.99) else None,
            longest_ns=int(times[-1]),
            state=worst_of(self._states),
            readings=len(self._states),
            throttled=sum(map(_is_throttled, known)) if known else None,
            power_mw=sum(self._powers) / len(self._powers) if self._powers else None,
        )


def _at(times: Any, share: float) -> int:
    """Percentile of sorted times by nearest rank."""
    return int(times[max(0, int(np.ceil(share * len(times))) - 1)])


def _is_throttled(state: MachineState) -> bool:
    return any(reason in THROTTLING for reason in state.throttling or ())


def worst_of(states: Sequence[MachineState]) -> MachineState:
    """The worst of several states in chronological order; counters and modes are those of the last."""
    temperatures: dict[str, float] = {}
    for state in states:
        for name, celsius in state.temperatures_c.items():
            temperatures[name] = max(celsius, temperatures.get(name, celsius))
    reasons = [state.throttling for state in states if state.throttling is not None]
    return dataclasses.replace(
        states[-1],
        cpu=_lowest(state.cpu for state in states),
        gpu=_lowest(state.gpu for state in states),
        gpu_memory=_lowest(state.gpu_memory for state in states),
        temperatures_c=temperatures,
        throttling=tuple(dict.fromkeys(reason for each in reasons for reason in each)) if reasons else None,
    )


def _lowest(clocks: Iterable[Frequency | None]) -> Frequency | None:
    known = [clock for clock in clocks if clock is not None and clock.now_mhz is not None]
    return min(known, key=lambda clock: clock.now_mhz or 0.0) if known else None
