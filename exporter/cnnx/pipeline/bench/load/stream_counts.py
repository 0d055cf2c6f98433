"""The results of the streams pass: what each number of streams achieved, and how many cameras fit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from cnnx.machine.state import MachineState
from cnnx.measure.footprint import Footprint
from cnnx.measure.load.streams import StreamsRun
from cnnx.measure.validity import Validity
from cnnx.record import Subject

Stopped = Literal["complete", "overloaded", "no room", "failed", "interrupted"]
"""Why larger numbers of streams were not measured; "complete": the largest requested was."""


@dataclass(frozen=True, slots=True)
class StreamCount:
    """What a number of streams achieved.

    Attributes:
        run: times of each stream.
        memory: memory of that number of execution contexts, in a separate process.
        validity: whether the figures are valid.
        states: states of the machine while runs counted, about every second.
    """

    run: StreamsRun
    memory: Footprint
    validity: Validity
    states: tuple[MachineState, ...]

    @property
    def streams(self) -> int:
        """The number of streams."""
        return len(self.run.streams)

    def as_dict(self, percentile: float) -> dict[str, Any]:
        """Plain data: figures, and the times that they are computed from."""
        run, share = self.run, percentile / 100
        return {
            "streams": self.streams,
            "images_per_second": run.images_per_second,
            "fairness": run.fairness,
            "p50_ns": run.percentile_ns(0.5),
            "percentile_ns": run.percentile_ns(share),
            "frames": run.frames,
            "missed": run.missed,
            "fits": run.fits,
            "each": [
                {
                    "images_per_second": rate,
                    "p50_ns": each.percentile_ns(0.5),
                    "percentile_ns": each.percentile_ns(share),
                    **dataclasses.asdict(each),
                    "latency_ns": list(each.latency_ns),
                }
                for rate, each in zip(run.rates, run.streams, strict=True)
            ],
            "memory": self.memory.as_dict(),
            "validity": self.validity.as_dict(),
            "states": [state.as_dict() for state in self.states],
        }


@dataclass(frozen=True, slots=True)
class StreamsMeasurement:
    """Numbers of streams of one subject at one batch, from 1 upward.

    Attributes:
        subject: what ran.
        batch: images per run.
        of: what the times are of, as in `StreamTimes.latency_ns`.
        cuda_graph: whether the kernels were launched as one CUDA graph; None: not supported here.
        fps: frames per second of each camera; None: back to back.
        percentile: requested percentile, in percent.
        asked: largest number of streams requested.
        counts: what each number achieved; at least one.
        ended: why there are no more.
        reason: the same in words; empty if complete.
        remark: what a reader must know in addition to the figures.
    """

    subject: Subject
    batch: int
    of: str
    cuda_graph: bool | None
    fps: float | None
    percentile: float
    asked: int
    counts: tuple[StreamCount, ...]
    ended: Stopped
    reason: str = ""
    remark: str = ""

    @property
    def cameras(self) -> int | None:
        """Number of cameras that fit: neither they nor fewer missed a frame. None back to back."""
        if self.fps is None:
            return None
        return next((place for place, each in enumerate(self.counts) if not each.run.fits), len(self.counts))

    @property
    def valid(self) -> bool:
        """Whether no rule found a problem at any number of streams."""
        return all(each.validity.valid for each in self.counts)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        skipped = {"subject", "counts"}
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skipped}
        return {
            "subject": dataclasses.asdict(self.subject),
            **own,
            "cameras": self.cameras,
            "counts": [each.as_dict(self.percentile) for each in self.counts],
        }
