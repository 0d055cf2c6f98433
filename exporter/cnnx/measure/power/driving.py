"""Running a load back to back or at a camera's rate, and counting what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cnnx.errors import UsageError
from cnnx.measure.power.sensors.sensor import Clock, Sleep, Span
from cnnx.schema import Positive

Load = Callable[[], int]
"""Runs once, waits for the result, and returns how many inferences that was."""

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Driven:
    """What a load did.

    Attributes:
        span: from the start of the first call; back to back to the end of the last, at a fixed rate to
            the moment at which the next one would be due.
        calls: of the load.
        inferences: what the calls returned, summed.
        dropped: calls left out at a fixed rate because the one before had not ended (a camera's lost frames).
    """

    span: Span
    calls: int
    inferences: Positive
    dropped: int


def drive(
    load: Load,
    *,
    seconds: float,
    rate: float | None,
    check: Callable[[], object],
    clock: Clock,
    sleep: Sleep,
) -> Driven:
    """Call a load for a while.

    Args:
        load: called again and again.
        seconds: how long at least.
        rate: calls a second, each at a multiple of the period; None: back to back.
        check: called about once a second between calls.
        clock: nanoseconds, monotonic.
        sleep: waits; may wait longer.

    Raises:
        UsageError: the load did not return a positive number.
    """
    start = clock()
    until, checked = start + int(seconds * 1e9), start
    pace = _Pace(start, rate, clock, sleep)
    calls = inferences = 0
    while True:
        done = load()
        if not isinstance(done, int) or done < 1:
            raise UsageError(f"a load returns how many inferences it did, 1 or more, not {done!r}")
        calls, inferences = calls + 1, inferences + done
        pace.wait()
        now = clock()
        if now - checked >= _SECOND_NS:
            checked = now
            check()
        if now >= until:
            return Driven(Span(start, now), calls, inferences, pace.dropped)


class _Pace:
    """When the next call is due."""

    def __init__(self, start: int, rate: float | None, clock: Clock, sleep: Sleep) -> None:
        self._period = int(1e9 / rate) if rate else 0
        self._due, self._clock, self._sleep = start, clock, sleep
        self.dropped = 0

    def wait(self) -> None:
        if not self._period:
            return
        self._due += self._period
        late = self._clock() - self._due
        if late > 0:
            skipped = -(-late // self._period)
            self.dropped += skipped
            self._due += skipped * self._period
        while (left := self._due - self._clock()) > 0:
            self._sleep(left / 1e9)
