"""Many streams of inference at the same time: back to back, or with the frames of cameras.

A camera does not wait for the result of its last frame. Frames are therefore due by the clock, and the
latency of a frame counts from then, also if it had to wait. If each frame started when the previous one has
ended, that wait would be missing ("coordinated omission", G. Tene, "How NOT to Measure Latency", 2013).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cnnx.measure.latency import batches_of, no_garbage_collection
from cnnx.measure.load.back_to_back import BackToBack
from cnnx.measure.load.host import THREADS, Host
from cnnx.measure.samples import percentile_of, samples_needed
from cnnx.runtimes import Images, Session
from cnnx.schema import Count, Positive, Quantity

# Streams run for this time, and for this number of runs, before runs count; the time is trtexec's warm-up.
_WARMUP_NS, _WARMUP_RUNS = 200_000_000, 10
_MARGIN = 1.1
# A number of streams that misses a larger share of its frames is beyond the device's limit. A few may be
# missed because the host was interrupted.
_OVERLOADED = 0.05


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """Times of one stream.

    Attributes:
        latency_ns: of each counted run, in order. Back to back, with transfers if the session queues, else
            end to end; for cameras, from the moment a frame is due until its result is in host memory.
        runs: runs in the counted time, also those whose time does not count.
        span_ns: from the beginning of the counted time to the end of the last run; for cameras, that time.
        unfinished: frames that were due and did not start in time; 0 back to back.
    """

    latency_ns: tuple[Count, ...]
    runs: Count
    span_ns: Positive
    unfinished: Count = 0

    @property
    def frames(self) -> int:
        """Number of runs whose latency counts, with those that did not start."""
        return len(self.latency_ns) + self.unfinished

    def percentile_ns(self, share: float) -> int | None:
        """Percentile by nearest rank, as `cnnx.measure.samples.percentile_of`; see `percentile_with`."""
        return percentile_with(self.latency_ns, self.unfinished, share)


@dataclass(frozen=True, slots=True)
class StreamsRun:
    """A number of streams that ran at the same time.

    Attributes:
        streams: times of each.
        batch: images per run.
        fps: frames per second of each camera; None: back to back.
    """

    streams: tuple[StreamTimes, ...]
    batch: Positive
    fps: Quantity | None = None

    @property
    def rates(self) -> tuple[float, ...]:
        """Images per second of each stream."""
        return tuple(self.batch * each.runs * 1e9 / each.span_ns for each in self.streams)

    @property
    def images_per_second(self) -> float:
        """Images per second of all streams together."""
        return sum(self.rates)

    @property
    def fairness(self) -> float | None:
        """Jain's index of the rates: 1 if all are equal, 1/n if one stream gets all; None if all are 0.

        R. Jain, D. Chiu and W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource
        Allocation in Shared Computer Systems", DEC TR-301, 1984.
        """
        squares = sum(rate * rate for rate in self.rates)
        return sum(self.rates) ** 2 / (len(self.rates) * squares) if squares else None

    @property
    def frames(self) -> int:
        """Number of frames of all streams, or of runs back to back."""
        return sum(each.frames for each in self.streams)

    @property
    def missed(self) -> int | None:
        """Number of frames without a result before the next was due; None back to back."""
        if self.fps is None:
            return None
        period = period_ns(self.fps)
        return sum(sum(ns > period for ns in each.latency_ns) + each.unfinished for each in self.streams)

    @property
    def fits(self) -> bool | None:
        """Whether every frame had its result before the next was due; None back to back."""
        return None if self.missed is None else self.missed == 0 < self.frames

    @property
    def missed_share(self) -> float:
        """Share of the frames that were missed; 0 back to back."""
        return (self.missed or 0) / max(1, self.frames)

    @property
    def overloaded(self) -> bool:
        """Whether the share of missed frames is too large to try more streams."""
        return self.missed_share > _OVERLOADED

    def percentile_ns(self, share: float) -> int | None:
        """Percentile over the runs of all streams."""
        times = [ns for each in self.streams for ns in each.latency_ns]
        return percentile_with(times, sum(each.unfinished for each in self.streams), share)


def percentile_with(times: Sequence[int], unfinished: int, share: float) -> int | None:
    """Percentile by nearest rank of times and of frames that never finished, which took longer than any.

    Returns:
        None for fewer than `samples_needed(share)` frames, or if the percentile is one that never finished.
    """
    if not unfinished:
        return percentile_of(times, share)
    count = len(times) + unfinished
    rank = math.ceil(share * count)
    return sorted(times)[rank - 1] if count >= samples_needed(share) and rank <= len(times) else None


def period_ns(fps: float) -> float:
    """Time from one frame to the next."""
    return 1e9 / fps


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How long a number of streams runs.

    Attributes:
        seconds: minimum time that counts.
        min_samples: runs that each stream should have; the time is longer if they need it.
        max_seconds: maximum time that counts.
        run_ns: time of a run of one stream alone.
        fps: frames per second of each camera; None: back to back.
    """

    seconds: float
    min_samples: int
    max_seconds: float
    run_ns: float
    fps: float | None = None

    def counted_ns(self, streams: int) -> int:
        """Time that counts. Back to back, streams are expected to wait for each other."""
        each = streams * self.run_ns * _MARGIN if self.fps is None else period_ns(self.fps)
        return int(min(self.max_seconds * 1e9, max(self.seconds * 1e9, self.min_samples * each)))

    def warmup_ns(self, streams: int) -> int:
        """Time before."""
        return int(max(_WARMUP_NS, _WARMUP_RUNS * streams * self.run_ns))


def measure_streams(
    sessions: Sequence[Session],
    images: Images,
    *,
    batch: int,
    plan: StreamPlan,
    look: Callable[[], object] = lambda: None,
    host: Host = THREADS,
) -> StreamsRun:
    """Run one stream on each session at the same time.

    The frames of all cameras are due at the same moment, as those of cameras with one trigger are. On a
    device that runs one batch after another, no other phase makes them wait longer for each other.

    Args:
        sessions: siblings, each warm and for one thread.
        images: (M, C, H, W) pool of images to cycle through.
        batch: images per run.
        plan: how long.
        look: called about once a second while runs count.
        host: time and threads.

    Raises:
        CnnxError: a run failed; all streams have ended then.
    """
    start, count = host.clock(), len(sessions)
    begin = start + plan.warmup_ns(count)
    until = begin + plan.counted_ns(count)
    stopped = threading.Event()
    found: dict[int, StreamTimes] = {}
    span = _Span(start, begin, until, stopped.is_set)

    def worker(place: int, session: Session) -> None:
        batches = batches_of(images, batch)
        # Cameras see different images.
        batches = [*batches[place % len(batches) :], *batches[: place % len(batches)]]
        if plan.fps is None:
            found[place] = _back_to_back(session, batches, span, host)
        else:
            found[place] = _camera(session, batches, span, host, plan.fps)

    def meanwhile() -> None:
        if begin <= host.clock() < until:
            look()

    workers = [partial(worker, place, session) for place, session in enumerate(sessions)]
    with no_garbage_collection():
        host.together(workers, meanwhile=meanwhile, stop=stopped.set)
    return StreamsRun(tuple(found[place] for place in range(count)), batch, plan.fps)


@dataclass(frozen=True, slots=True)
class _Span:
    """When streams start, when runs begin and cease to count, and whether all should stop early."""

    start_ns: int
    begin_ns: int
    until_ns: int
    stopped: Callable[[], bool]


def _back_to_back(session: Session, batches: Sequence[Images], span: _Span, host: Host) -> StreamTimes:
    runs = BackToBack(session, batches, host.clock)
    runs.run(span.begin_ns, span.stopped)
    begin = host.clock()
    found = runs.run(span.until_ns, span.stopped)
    return StreamTimes(found.times_ns, found.runs, max(1, host.clock() - begin))


def _camera(session: Session, batches: Sequence[Images], span: _Span, host: Host, fps: float) -> StreamTimes:
    """Run each frame when it is due, or as soon as those before it have ended.

    A frame that has not started when the next is due after the counted time has missed it for certain.
    """
    latencies: list[int] = []
    last_start_ns = span.until_ns + period_ns(fps)
    due_ns, number, counted = span.start_ns, 0, 0
    while due_ns < span.until_ns and not span.stopped():
        counts = due_ns >= span.begin_ns
        counted += counts
        while (left := due_ns - host.clock()) > 0:
            host.sleep(left / 1e9)
        if host.clock() < last_start_ns:
            outputs = session.run(batches[number % len(batches)])
            end = host.clock()
            del outputs
            if counts:
                latencies.append(end - due_ns)
        number += 1
        due_ns = span.start_ns + round(number * period_ns(fps))
    return StreamTimes(
        tuple(latencies), len(latencies), span.until_ns - span.begin_ns, counted - len(latencies)
    )
