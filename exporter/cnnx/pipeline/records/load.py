"""The types that the results of streams and soak records are checked against when they are read."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from cnnx.measure.load.soak import Ended
from cnnx.measure.load.trend import Trend
from cnnx.measure.power import SensorInfo
from cnnx.pipeline.bench.load.stream_counts import Stopped
from cnnx.pipeline.records.benchmark import PlainFootprint, PlainMachineState, PlainValidity
from cnnx.record import Subject
from cnnx.schema import Count, Positive, Quantity, Rate


@dataclass(frozen=True, slots=True)
class PlainStream:
    """One stream, as `cnnx.measure.load.streams.StreamTimes` describes it."""

    images_per_second: Quantity
    p50_ns: Count | None
    percentile_ns: Count | None
    latency_ns: tuple[Count, ...]
    runs: Count
    span_ns: Positive
    unfinished: Count


@dataclass(frozen=True, slots=True)
class PlainStreamCount:
    """A number of streams, as `cnnx.pipeline.bench.load.stream_counts.StreamCount` describes it."""

    streams: Positive
    images_per_second: Quantity
    fairness: Quantity | None
    p50_ns: Count | None
    percentile_ns: Count | None
    frames: Count
    missed: Count | None
    fits: bool | None
    each: tuple[PlainStream, ...]
    memory: PlainFootprint
    validity: PlainValidity
    states: tuple[PlainMachineState, ...]

    def __post_init__(self) -> None:
        if len(self.each) != self.streams:
            raise ValueError(f"streams is {self.streams}, but each has {len(self.each)} entries")


FramesPerSecond = Annotated[float, Meta(gt=0, description="a number above 0")]
StreamCounts = Annotated[
    tuple[PlainStreamCount, ...], Meta(min_length=1, description="a list of at least one number of streams")
]


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams pass, as `cnnx.pipeline.bench.load.stream_counts.StreamsMeasurement` describes it."""

    subject: Subject
    batch: Positive
    of: str
    cuda_graph: bool | None
    fps: FramesPerSecond | None
    percentile: Quantity
    asked: Positive
    ended: Stopped
    reason: str
    remark: str
    cameras: Count | None
    counts: StreamCounts

    def __post_init__(self) -> None:
        if (self.cameras is None) != (self.fps is None):
            raise ValueError(f"cameras is {self.cameras}, but fps is {self.fps}")
        if self.cameras is not None and self.cameras > len(self.counts):
            raise ValueError(f"cameras is {self.cameras}, but counts has {len(self.counts)} entries")
        for place, count in enumerate(self.counts):
            if (count.missed is None) != (self.fps is None):
                raise ValueError(f"counts[{place}].missed is {count.missed}, but fps is {self.fps}")


@dataclass(frozen=True, slots=True)
class PlainWindow:
    """Some seconds of a soak, as `cnnx.measure.load.windows.Window` describes them."""

    start_ns: Count
    span_ns: Positive
    runs: Positive
    busy_ns: Positive
    p50_ns: Count
    p99_ns: Count | None
    longest_ns: Count
    state: PlainMachineState
    readings: Positive
    throttled: Count | None
    power_mw: float | None


Windows = Annotated[tuple[PlainWindow, ...], Meta(min_length=1, description="a list of at least one window")]


@dataclass(frozen=True, slots=True)
class Soak:
    """A soak, as `cnnx.pipeline.bench.load.soak.SoakMeasurement` describes it."""

    subject: Subject
    cuda_graph: bool | None
    seconds: Quantity
    images_per_second: Quantity
    drift: Trend | None
    throttled_share: Rate | None
    sensor: SensorInfo | None
    no_power: str
    validity: PlainValidity
    remark: str
    of: str
    batch: Positive
    asked_s: Quantity
    ended: Ended
    reason: str
    windows: Windows

    def __post_init__(self) -> None:
        for place, (one, other) in enumerate(itertools.pairwise(self.windows), start=1):
            if other.start_ns <= one.start_ns:
                raise ValueError(f"windows[{place}].start_ns is {other.start_ns}, not after {one.start_ns}")
