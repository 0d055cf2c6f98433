"""Runs a load back to back or at a fixed rate, such as that of a camera, and counts inferences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cnnx.errors import UsageError
from cnnx.measure.power.sensors.sensor import Clock, Sleep, Span
from cnnx.schema import Positive

Load = Callable[[], int]
"""Runs once, waits for the result, and returns the number of inferences."""

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Driven:
    """Result of running a load.

    Attributes:
        span: from the start of the first call to the end of the last, or at a fixed rate, to the time when
            the next call is due.
        calls: number of calls.
        inferences: sum of the return values.
        dropped: calls skipped at a fixed rate because the previous call had not ended, like dropped frames of
            a camera.
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
    """Call a load repeatedly for a time.

    Args:
        load: function to call.
        seconds: minimum duration.
        rate: calls per second, each at a multiple of the period; None for back to back.
        check: called about once a second between calls.
        clock: monotonic clock in nanoseconds.
        sleep: waits for a number of seconds or longer.

    Raises:
        UsageError: the load did not return a positive integer.
    """
    start = clock()
    until, checked = start + int(seconds * 1e9), start
    pace = _Pace(start, rate, clock, sleep)
    calls = inferences = 0
    while True:
        done = load()
        if not isinstance(done, int) or done < 1:
            what = f"the load returned {done!r}, not its number of inferences"
            raise UsageError(what, hint="return an integer of 1 or more from the load")
        calls, inferences = calls + 1, inferences + done
        pace.wait()
        now = clock()
        if now - checked >= _SECOND_NS:
            checked = now
            check()
        if now >= until:
            return Driven(Span(start, now), calls, inferences, pace.dropped)


class _Pace:
    """Schedule of calls at a fixed rate."""

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
