"""Runs a session without a pause: queued two deep if it queues, else one run after another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnx.measure.latency import Clock
from cnnx.runtimes import Images, Session, TimedSession, queues

# Time for which runs are queued at a time. Between two such series the images are copied into page-locked
# memory, and the GPU waits.
_SERIES_NS = 250_000_000


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Stretch:
    """Runs for a time.

    Attributes:
        times_ns: time of each counted run: with transfers if the session queues, else end to end.
        runs: number of all runs, also of those that are not counted.
    """

    times_ns: tuple[int, ...]
    runs: int


class BackToBack:
    """Runs one session on one batch after another.

    Args:
        session: the session; only this object may run it.
        batches: batches to cycle through.
        clock: monotonic clock in nanoseconds.

    Attributes:
        of: name of the series of times, as in `Latency.series`.
    """

    def __init__(self, session: Session, batches: Sequence[Images], clock: Clock) -> None:
        self._session, self._batches, self._clock = session, itertools.cycle(batches), clock
        self._runs, self._run_ns = 0, 1  # of the last series
        self.of = "with transfers" if queues(session) else "end to end"

    def run(self, until_ns: int, stopped: Callable[[], bool] = _never) -> Stretch:
        """Run until a time, at least once, or until `stopped` returns True. The first run is not counted."""
        if queues(self._session):
            return self._queued(self._session, until_ns, stopped)
        times: list[int] = []
        self._session.run(next(self._batches))
        while not times or (self._clock() < until_ns and not stopped()):
            images = next(self._batches)
            start = self._clock()
            outputs = self._session.run(images)
            end = self._clock()
            del outputs  # free them outside the measured time
            times.append(end - start)
        return Stretch(tuple(times), len(times) + 1)

    def _queued(self, session: TimedSession, until_ns: int, stopped: Callable[[], bool]) -> Stretch:
        times: list[int] = []
        series = 0
        while not times or (self._clock() < until_ns and not stopped()):
            left_ns = min(_SERIES_NS, until_ns - self._clock())
            # A single series may look fast by chance, so that the number of runs grows step by step.
            runs = max(1, min(2 * self._runs, left_ns // self._run_ns))
            found = session.timed_series(next(self._batches), runs)
            self._runs, self._run_ns = runs, max(1, found.wall_ns // runs)
            times += [run.latency_ns for run in found.runs]
            series += 1
        return Stretch(tuple(times), len(times) + series)
