"""The streams pass: 1, 2 and so on streams of inference at the same time, over one loaded network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cnnx import runtimes
from cnnx.errors import CnnxError
from cnnx.machine.state import MachineState, read_state
from cnnx.measure.footprint import Footprint, measure_footprints
from cnnx.measure.load.host import THREADS, Host
from cnnx.measure.load.streams import StreamPlan, StreamsRun, measure_streams
from cnnx.measure.machine_rules import judge_machine
from cnnx.measure.memory import MemoryUse
from cnnx.measure.spread import judge_repeatable
from cnnx.measure.validity import Validity
from cnnx.pipeline.bench.latency import batch_from
from cnnx.pipeline.bench.load.stream_counts import Stopped, StreamCount, StreamsMeasurement
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.target import OpenSubject
from cnnx.report.words import several
from cnnx.runtimes import Images


@dataclass(frozen=True, slots=True)
class StreamsPass:
    """How streams are measured.

    Attributes:
        most: largest number of streams.
        fps: frames per second of each camera; None: back to back.
        percentile: percentile to report, in percent.
        seconds: minimum time for each number of streams.
        min_samples: runs that each stream should have.
        max_seconds: maximum time for each number of streams.
        host: time and threads.
    """

    most: int
    fps: float | None
    percentile: float
    seconds: float
    min_samples: int
    max_seconds: float
    host: Host = THREADS

    def plan(self, run_ns: float) -> StreamPlan:
        """How long each number runs, given the time of a run of one stream."""
        return StreamPlan(self.seconds, self.min_samples, self.max_seconds, run_ns, self.fps)

    def at_most_s(self, run_ns: float) -> float:
        """Time for all numbers of streams, without opening them."""
        plan = self.plan(run_ns)
        numbers = range(1, self.most + 1)
        return sum(plan.counted_ns(number) + plan.warmup_ns(number) for number in numbers) / 1e9


def measure_stream_counts(
    subject: OpenSubject,
    images: Images,
    *,
    batch: int,
    cuda_graph: bool | None,
    run_ns: float,
    remark: str,
    streams: StreamsPass,
    progress: Progress,
) -> StreamsMeasurement:
    """Measure 1, 2 and so on streams, until the largest number or the first that is beyond the device.

    Memory is measured first, in a process of its own, as a small board has no memory for two copies of the
    network. A number of contexts for which that process fails is not opened here.

    Args:
        subject: the network.
        images: (M, C, H, W) pool of images as the graph takes them.
        batch: images per run.
        cuda_graph: launch an engine's kernels as one CUDA graph; None: not supported here.
        run_ns: time of a run of one stream.
        remark: remark to keep with the figures.
        streams: how to measure.
        progress: called with the numbers of streams that are done, and with the largest.

    Raises:
        CnnxError: a single stream cannot be measured.
    """
    options, first = subject.wanted(cuda_graph=bool(cuda_graph)), batch_from(images, batch)
    footprints = measure_footprints(subject.runtime.name, subject.file, first, options, streams=streams.most)
    counts: list[StreamCount] = []
    on_gpu = subject.subject.device_kind == "gpu"
    with _Sessions(subject, first, cuda_graph=bool(cuda_graph)) as sessions:
        growing = _growing(sessions, images, batch, footprints, streams, run_ns, on_gpu=on_gpu)
        ended: Stopped = "complete"
        reason = ""
        progress(0, streams.most)
        try:
            for found in growing:
                if isinstance(found, StreamCount):
                    counts.append(found)
                    progress(len(counts), streams.most)
                else:
                    ended, reason = found
        except CnnxError as error:
            if not counts:
                raise
            ended, reason = "failed", f"{several(len(counts) + 1, 'stream')} failed: {error.what}"
        except KeyboardInterrupt:
            if not counts:
                raise
            done = f"{len(counts)} of {streams.most} numbers of streams"
            ended, reason = "interrupted", f"stopped by Ctrl-C after {done}"
    return StreamsMeasurement(
        subject=subject.subject,
        batch=batch,
        of=sessions.series if streams.fps is None else "frame to result",
        cuda_graph=cuda_graph,
        fps=streams.fps,
        percentile=streams.percentile,
        asked=streams.most,
        counts=tuple(counts),
        ended=ended,
        reason=reason,
        remark=remark,
    )


class _Sessions:
    """A context manager of sessions on one loaded network, to which more can be added.

    Args:
        subject: the network.
        images: a batch to warm each session with.
        cuda_graph: launch an engine's kernels as one CUDA graph.
    """

    def __init__(self, subject: OpenSubject, images: Images, *, cuda_graph: bool) -> None:
        self._subject, self._images, self._cuda_graph = subject, images, cuda_graph
        self.all: list[runtimes.Session] = []

    def __enter__(self) -> _Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.all:
            session.close()

    @property
    def series(self) -> str:
        """Name of the series that the sessions report."""
        return "with transfers" if runtimes.queues(self.all[0]) else "end to end"

    def grow(self) -> None:
        """Open a further session and run it once, which captures its CUDA graph."""
        more = self.all[0].sibling() if self.all else self._subject.open(cuda_graph=self._cuda_graph)
        self.all.append(more)
        getattr(more, "timed_run", more.run)(self._images)


def _growing(
    sessions: _Sessions,
    images: Images,
    batch: int,
    footprints: Sequence[Footprint],
    streams: StreamsPass,
    run_ns: float,
    *,
    on_gpu: bool,
) -> Iterator[StreamCount | tuple[Stopped, str]]:
    """Measure one number after another; last, why there are no more, unless all were measured."""
    for number in range(1, streams.most + 1):
        memory = _memory(footprints, number)
        if memory.failed and number > 1 and not footprints[0].failed:
            yield "no room", f"there is no memory for {number} streams: {memory.failed}"
            return
        sessions.grow()
        states: list[MachineState] = []
        run = measure_streams(
            sessions.all,
            images,
            batch=batch,
            plan=streams.plan(run_ns),
            look=partial(_look, states),
            host=streams.host,
        )
        validity = judge_streams(run, states, on_gpu=on_gpu, percentile=streams.percentile)
        yield StreamCount(run, memory, validity, tuple(states))
        if run.overloaded and number < streams.most:
            yield "overloaded", f"{several(number, 'stream')} missed {run.missed_share:.1%} of the frames"
            return


def _look(states: list[MachineState]) -> None:
    states.append(read_state())


def _memory(footprints: Sequence[Footprint], number: int) -> Footprint:
    """The footprint of a number of streams; unknown after one that failed."""
    if number <= len(footprints):
        return footprints[number - 1]
    return Footprint(MemoryUse(None, None, None), failed=footprints[-1].failed)


def judge_streams(
    run: StreamsRun, states: Sequence[MachineState], *, on_gpu: bool, percentile: float
) -> Validity:
    """Check the machine by the rules of latencies, and each percentile by whether it is repeatable.

    The rules on spread do not apply: streams that wait for each other vary by nature. On a CPU nothing is
    judged, as there.

    Args:
        run: the streams.
        states: states of the machine.
        on_gpu: whether they ran on a GPU.
        percentile: percentile that is reported in addition to the median, in percent.
    """
    if not on_gpu:
        return Validity((), ())
    findings, remarks = judge_machine(states)
    slowest = max(run.streams, key=lambda each: each.percentile_ns(0.5) or math.inf)
    judged = tuple(judge_repeatable(slowest.latency_ns, each) for each in sorted({50.0, percentile}))
    return Validity(tuple(findings), tuple(remarks), judged)
