"""Latency of one batch: of the GPU with runs queued two deep, and end to end, from and to host memory."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cnnx.errors import UsageError
from cnnx.measure.samples import Breakdown, Latency, WarmUpEnd
from cnnx.runtimes import Images, RunSeries, RunTimes, Session, TimedSession, queues

Clock = Callable[[], int]
OnShareDone = Callable[[float], None]
"""Called with the completed share, 0..1."""

# Warm-up ends when two successive windows of 10 runs have medians within 2 % of each other, but not within
# the first 0.2 s (trtexec's warm-up). It gives up after a quarter of the time limit.
_WINDOW = 10
_STEADY = 0.02
_LOOK_NS = 1_000_000_000
_WARMUP_NS = 200_000_000
_WARMUP_SHARE = 0.25
# Counted runs per turn when sessions alternate. An extra first run refills caches and is not counted.
_TURN = 10
# Where runs are queued, end to end times take a third of the minimum time, and a quarter of the time limit.
_END_TO_END, _QUEUED_SHARE = 3, 0.75


def _ignore_progress(_share: float) -> None:
    """Ignore the progress."""


def _no_look() -> None:
    """Do not look at the machine."""


def measure_latency(
    session: Session,
    images: Images,
    *,
    batch: int,
    min_seconds: float = 3.0,
    min_samples: int = 100,
    max_seconds: float = 60.0,
    progress: OnShareDone = _ignore_progress,
    clock: Clock = time.perf_counter_ns,
) -> Latency:
    """Measure one session: warm up until steady, then sample until both minimums are reached.

    The garbage collector is disabled while the clock runs, as in `timeit`.

    Args:
        images: (M, C, H, W) pool of images to cycle through, so that no single image determines the result.
        batch: images per run.
        min_seconds: minimum sum of the samples.
        min_samples: minimum number of samples.
        max_seconds: time limit including warm-up; samples taken until then are returned and marked as not
            complete.
        clock: monotonic clock in nanoseconds.

    Raises:
        UsageError: an empty pool, or limits that no measurement can meet.
    """
    measured = measure_side_by_side(
        {"": session},
        images,
        batch=batch,
        min_seconds=min_seconds,
        min_samples=min_samples,
        max_seconds=max_seconds,
        progress=progress,
        clock=clock,
    )
    return measured[""]


def measure_side_by_side(
    sessions: Mapping[str, Session],
    images: Images | Mapping[str, Images],
    *,
    batch: int,
    min_seconds: float = 3.0,
    min_samples: int = 100,
    max_seconds: float = 60.0,
    progress: OnShareDone = _ignore_progress,
    clock: Clock = time.perf_counter_ns,
    look: Callable[[], None] = _no_look,
) -> dict[str, Latency]:
    """Measure several sessions in alternating turns, so that drift affects all of them equally.

    The order of turns reverses each round (A B, B A, ...). The arguments of `measure_latency` apply to each
    session; `max_seconds` applies to all together. Sessions that report a time breakdown
    (`cnnx.runtimes.TimedSession`) are measured with runs queued two deep, and then end to end, for a third of
    `min_seconds`. Both take the samples asked for.

    Args:
        sessions: sessions by name.
        images: pool for all sessions, or one per name.
        look: called after warm-up, between turns about once a second, and after the last run. Idle clocks
            would be meaningless, and throttling may occur only in between.
        progress: called before each round of turns. This and `look` may take time, as the first run of a
            turn is not counted.
    """
    pools = images if isinstance(images, Mapping) else dict.fromkeys(sessions, images)
    if batch < 1 or not sessions or min(map(len, pools.values())) < 1:
        raise UsageError(
            f"cannot measure {len(sessions)} sessions with batch {batch} and "
            f"{min(map(len, pools.values()), default=0)} images",
            hint="pass at least one session, a batch of 1 or more, and at least one image",
        )
    if max_seconds <= 0 or min_samples < 1:
        what = f"invalid limits: max_seconds is {max_seconds:g}, min_samples is {min_samples}"
        raise UsageError(what, hint="use a positive time limit and a minimum of 1 or more samples")
    goal = _Goal(min_ns=int(min_seconds * 1e9), min_samples=min_samples)
    deadline = clock() + int(max_seconds * 1e9)
    patience = int(max_seconds * 1e9 * _WARMUP_SHARE / len(sessions))
    series = {
        name: _series(session, batches_of(pools[name], batch), clock) for name, session in sessions.items()
    }
    queued = [one for one in series.values() if isinstance(one, _Queued)]
    share = _QUEUED_SHARE if queued else 1.0
    with no_garbage_collection():
        for one in series.values():
            one.warm_up(patience)
        look()
        until = deadline - int((1 - share) * max_seconds * 1e9)
        turns = _Turns(clock, lambda done: progress(share * done), look)
        turns.take(list(series.values()), goal, until)
        if queued:
            # Not looked at: the GPU waits for Python, and its clock may fall.
            shorter = _Goal(goal.min_ns // _END_TO_END, min_samples)
            end_to_end = [one.end_to_end for one in queued]
            turns = _Turns(clock, lambda done: progress(share + (1 - share) * done), _no_look)
            turns.take(end_to_end, shorter, deadline)
    return {name: one.latency(batch, goal) for name, one in series.items()}


def _series(session: Session, batches: Sequence[Images], clock: Clock) -> _Series:
    return _Queued(session, batches, clock) if queues(session) else _Series(session, batches, clock)


@dataclass(frozen=True, slots=True)
class _Goal:
    min_ns: int
    min_samples: int

    def share(self, samples: list[int]) -> float:
        """Progress towards both minimums, 0..1."""
        by_time = sum(samples) / self.min_ns if self.min_ns > 0 else 1.0
        return min(1.0, by_time, len(samples) / self.min_samples)


@dataclass(frozen=True, slots=True)
class _Turns:
    """Takes turns until the goal is met by all."""

    clock: Clock
    progress: OnShareDone
    look: Callable[[], None]

    def take(self, series: list[_Series], goal: _Goal, deadline: int) -> None:
        """Read the final state before reporting progress: GPU clocks drop during a redraw."""
        looked = self.clock()
        while True:
            share = min(goal.share(one.samples) for one in series)
            if share >= 1:
                self.look()
                self.progress(share)
                return
            self.progress(share)
            for one in series:
                one.turn(deadline)
            if self.clock() >= deadline:
                self.look()
                return
            if self.clock() - looked >= _LOOK_NS:
                self.look()
                looked = self.clock()
            series = series[::-1]


class _Series:
    """The runs of one session, end to end."""

    def __init__(self, session: Session, batches: Sequence[Images], clock: Clock) -> None:
        self._session, self._batches, self._clock = session, itertools.cycle(batches), clock
        self._uncounted = 0
        self._ended: WarmUpEnd = "time limit"
        self.samples: list[int] = []

    def warm_up(self, patience_ns: int) -> None:
        """Run until steady or until the time limit."""
        start, taken = self._clock(), list[int]()
        while (spent := self._clock() - start) < patience_ns:
            taken += self._warming_runs(patience_ns - spent)
            if self._clock() - start >= _WARMUP_NS and _is_steady(taken):
                self._ended = "steady"
                break
        self._uncounted += len(taken)

    def turn(self, deadline: int) -> None:
        """Run at least once after an uncounted first run, as another session ran before."""
        self._timed()
        self._uncounted += 1
        for _ in range(_TURN):
            self.samples.append(self._timed())
            if self._clock() >= deadline:
                return

    def latency(self, batch: int, goal: _Goal) -> Latency:
        """The measured latencies."""
        return Latency(
            samples_ns=tuple(self.samples),
            batch=batch,
            warmup=self._uncounted,
            warmup_ended=self._ended,
            complete=goal.share(self.samples) >= 1,
            turn=_TURN,
        )

    def _warming_runs(self, patience_ns: int) -> list[int]:
        return [self._timed()]

    def _timed(self) -> int:
        images = next(self._batches)
        start = self._clock()
        outputs = self._session.run(images)
        end = self._clock()
        del outputs  # free them outside the measured time
        return end - start


class _Queued(_Series):
    """The runs of a session that times their parts, queued two deep; their end to end runs come after.

    The samples, on which the goal is judged, are the times with transfers.
    """

    def __init__(self, session: TimedSession, batches: Sequence[Images], clock: Clock) -> None:
        super().__init__(session, batches, clock)
        self._queueing = session
        self.end_to_end = _Series(session, batches, clock)
        self._last_ns = 0
        self._parts: list[RunTimes] = []
        self._walls: list[int] = []

    def turn(self, deadline: int) -> None:
        """Run a turn, shorter where the deadline is near; the session adds a run that is not counted."""
        found = self._run_series(deadline - self._clock())
        self._parts += found.runs
        self._walls.append(found.wall_ns)
        self.samples += [run.latency_ns for run in found.runs]

    def latency(self, batch: int, goal: _Goal) -> Latency:
        """The measured latencies. The end-to-end pass may have been cut short."""
        one = super().latency(batch, goal)
        return dataclasses.replace(
            one,
            samples_ns=tuple(self.end_to_end.samples),
            warmup=self._uncounted + self.end_to_end._uncounted,
            parts=Breakdown.of(self._parts),
            queued_ns=tuple(self._walls),
        )

    def _warming_runs(self, patience_ns: int) -> list[int]:
        return [run.compute_ns for run in self._run_series(patience_ns).runs]

    def _run_series(self, time_ns: int) -> RunSeries:
        """As many runs as fit into the time, at least one and at most a turn."""
        runs = max(1, min(_TURN, time_ns // self._last_ns)) if self._last_ns else 1
        found = self._queueing.timed_series(next(self._batches), runs)
        self._last_ns = max(1, found.wall_ns // runs)
        self._uncounted += 1
        return found


def _is_steady(taken: list[int]) -> bool:
    if len(taken) < 2 * _WINDOW:
        return False
    before = statistics.median(taken[-2 * _WINDOW : -_WINDOW])
    return abs(statistics.median(taken[-_WINDOW:]) - before) <= _STEADY * before


def batches_of(images: Images, batch: int) -> list[Images]:
    """Contiguous batches; views if the pool is large enough.

    Args:
        images: (M, C, H, W) with M at least 1. Images are repeated if M is less than a batch; an incomplete
            last batch is dropped.
        batch: images per batch.
    """
    enough = images if len(images) >= batch else np.resize(images, (batch, *images.shape[1:]))
    pool: Images = np.ascontiguousarray(enough)
    return [pool[i : i + batch] for i in range(0, len(pool) - batch + 1, batch)]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Context manager without automatic garbage collection, as in `timeit`; collects once before."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
