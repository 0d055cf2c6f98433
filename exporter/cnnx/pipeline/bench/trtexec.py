"""`bench --compare-trtexec`: where a measurement and one of trtexec agree."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cnnx.measure.samples import Latency
from cnnx.measure.spread import UNSTEADY
from cnnx.measure.trtexec import Trtexec
from cnnx.pipeline.bench.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of both.

    Attributes:
        what: "GPU compute", "with transfers", "enqueue", "H2D", "D2H" or "runs per second".
        ours: median in ms, or a rate.
        theirs: that of trtexec.
    """

    what: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float | None:
        """Ours over theirs, minus 1; None if theirs is 0."""
        return self.ours / self.theirs - 1 if self.theirs else None

    @property
    def agrees(self) -> bool:
        """Whether they differ by no more than the spread within which a median is valid."""
        return self.difference is not None and abs(self.difference) <= UNSTEADY

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**dataclasses.asdict(self), "difference": self.difference, "agrees": self.agrees}


@dataclass(frozen=True, slots=True)
class TrtexecComparison:
    """A measurement compared with trtexec's.

    Attributes:
        rows: figures that both have.
        remarks: conditions that differ, each a sentence.
    """

    rows: tuple[Compared, ...]
    remarks: tuple[str, ...]


def compare_trtexec(measured: Measurement, theirs: Trtexec) -> TrtexecComparison | None:
    """Compare a measurement of an engine with one of trtexec; None without a breakdown."""
    ours = _medians_ms(measured.latency)
    if not ours:
        return None
    # Without transfers, trtexec's latency is GPU compute.
    skipped = {"with transfers", "H2D", "D2H"} if theirs.transfers is False else set()
    rows = [
        Compared(what, ours[what], median)
        for what, median in theirs.medians_ms.items()
        if what in ours and what not in skipped
    ]
    if theirs.queries_per_second is not None:
        rate = measured.latency.throughput / measured.latency.batch
        rows.append(Compared("runs per second", rate, theirs.queries_per_second))
    return TrtexecComparison(tuple(rows), tuple(_remarks(measured, theirs)))


def _medians_ms(latency: Latency) -> dict[str, float]:
    parts = latency.parts
    if parts is None:
        return {}
    series = {
        "GPU compute": parts.compute_ns,
        "with transfers": parts.latency_ns,
        "enqueue": parts.enqueue_ns,
        "H2D": parts.h2d_ns,
        "D2H": parts.d2h_ns,
    }
    return {what: statistics.median(times) / 1e6 for what, times in series.items()}


def _remarks(measured: Measurement, theirs: Trtexec) -> Iterator[str]:
    graph, version = measured.conditions.cuda_graph, measured.subject.runtime
    if theirs.cuda_graph is not None and theirs.cuda_graph != bool(graph):
        one, other = ("with", "without") if theirs.cuda_graph else ("without", "with")
        yield f"trtexec ran {one} a CUDA graph, and cnnx {other}."
    if theirs.release and theirs.release not in version:
        yield f"trtexec is of TensorRT {theirs.release}, and cnnx ran {version}."
    if theirs.transfers is False:
        yield "trtexec copied nothing to and from the GPU, so its throughput can be higher."
    if theirs.cuda_graph is None:
        yield "Exported times do not say whether trtexec launched a CUDA graph or copied data."
