"""End-to-end latency of one batch, from images in host memory to outputs in host memory."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import UsageError
from cnnx.measure.samples import Breakdown, Latency, WarmUpEnd
from cnnx.runtimes import RunTimes, Session

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


def _ignore_progress(_share: float) -> None:
    """Ignore the progress."""


def _no_look() -> None:
    """Do not look at the machine."""


def measure_latency(
    session: Session,
    images: NDArray[np.float32],
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
    images: NDArray[np.float32] | Mapping[str, NDArray[np.float32]],
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
    (`cnnx.runtimes.TimedSession`) report it for every run.

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
    with _no_garbage_collection():
        series = {
            name: _Series(session, batches_of(pools[name], batch), clock)
            for name, session in sessions.items()
        }
        for one in series.values():
            one.warm_up(patience)
        look()
        _take_turns(list(series.values()), goal, deadline, clock=clock, progress=progress, look=look)
    return {name: one.latency(batch, goal) for name, one in series.items()}


@dataclass(frozen=True, slots=True)
class _Goal:
    min_ns: int
    min_samples: int

    def share(self, samples: list[int]) -> float:
        """Progress towards both minimums, 0..1."""
        by_time = sum(samples) / self.min_ns if self.min_ns > 0 else 1.0
        return min(1.0, by_time, len(samples) / self.min_samples)


def _take_turns(
    series: list[_Series],
    goal: _Goal,
    deadline: int,
    *,
    clock: Clock,
    progress: OnShareDone,
    look: Callable[[], None],
) -> None:
    """Run the turns. Read the final state before reporting progress: GPU clocks drop during a redraw."""
    looked = clock()
    while True:
        share = min(goal.share(one.samples) for one in series)
        if share >= 1:
            look()
            progress(share)
            return
        progress(share)
        for one in series:
            one.turn(deadline)
        if clock() >= deadline:
            look()
            return
        if clock() - looked >= _LOOK_NS:
            look()
            looked = clock()
        series = series[::-1]


class _Series:
    """The runs of one session."""

    def __init__(self, session: Session, batches: Sequence[NDArray[np.float32]], clock: Clock) -> None:
        self._batches, self._clock = itertools.cycle(batches), clock
        self._run: Callable[[NDArray[np.float32]], object] = getattr(session, "timed_run", session.run)
        self._uncounted = 0
        self._ended: WarmUpEnd = "time limit"
        self._last_times: RunTimes | None = None
        self._parts: list[RunTimes] = []
        self.samples: list[int] = []

    def warm_up(self, patience_ns: int) -> None:
        """Run until steady or until the time limit."""
        start, taken = self._clock(), list[int]()
        while self._clock() - start < patience_ns:
            taken.append(self._timed())
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
            if self._last_times is not None:
                self._parts.append(self._last_times)
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
            parts=Breakdown.of(self._parts) if self._parts else None,
        )

    def _timed(self) -> int:
        images = next(self._batches)
        start = self._clock()
        outputs = self._run(images)
        end = self._clock()
        self._last_times = outputs if isinstance(outputs, RunTimes) else None
        del outputs  # free them outside the measured time
        return end - start


def _is_steady(taken: list[int]) -> bool:
    if len(taken) < 2 * _WINDOW:
        return False
    before = statistics.median(taken[-2 * _WINDOW : -_WINDOW])
    return abs(statistics.median(taken[-_WINDOW:]) - before) <= _STEADY * before


def batches_of(images: NDArray[np.float32], batch: int) -> list[NDArray[np.float32]]:
    """Contiguous batches; views if the pool is large enough.

    Args:
        images: (M, C, H, W) with M at least 1. Images are repeated if M is less than a batch; an incomplete
            last batch is dropped.
        batch: images per batch.
    """
    if len(images) < batch:
        images = np.resize(images, (batch, *images.shape[1:]))
    images = np.ascontiguousarray(images)
    return [images[i : i + batch] for i in range(0, len(images) - batch + 1, batch)]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
