"""Explains a layer profile: limits of each layer, where the time goes, and the main cause in one sentence."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnx.measure.roofline.causes import Cause, View, causes_of
from cnnx.measure.roofline.flow import flow_of, kind_of
from cnnx.measure.roofline.limits import (
    LayerLimit,
    TimeKind,
    attained_share,
    launch_ns,
    limits_of,
    time_shares,
)
from cnnx.measure.roofline.peaks import Peaks
from cnnx.measure.roofline.work import Network, work_of
from cnnx.measure.samples import Latency
from cnnx.runtimes.kernels import Kernel
from cnnx.runtimes.layer_times import LayerTime


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an engine takes the time that it takes.

    Attributes:
        sentence: the main cause and the change that helps; or that nothing stands out.
        causes: all causes, the most rewarding change first.
        shares: share of the latency with transfers by kind; of the layers' time if copies are not measured.
        attained: least time of the layers over their time, conversions included; None if not known.
        layers: each layer against the roofline.
        peaks: peak rates; None if they are not known.
        unknown: why the peaks are not known; empty if they are.
        launch_ns: time of the shortest layer, most of which is its launch; 0 if launches do not matter.
        unmatched: share of the layers' time of which the builder reported nothing.
    """

    sentence: str
    causes: tuple[Cause, ...]
    shares: Mapping[TimeKind, float]
    attained: float | None
    layers: tuple[LayerLimit, ...]
    peaks: Peaks | None
    unknown: str
    launch_ns: float
    unmatched: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "sentence": self.sentence,
            "causes": [dataclasses.asdict(cause) for cause in self.causes],
            "shares": dict(self.shares),
            "attained": self.attained,
            "layers": [layer.as_dict() for layer in self.layers],
            "peaks": self.peaks.as_dict() if self.peaks else None,
            "unknown": self.unknown,
            "launch_ns": self.launch_ns,
            "unmatched": self.unmatched,
        }


@dataclass(frozen=True, slots=True)
class Profiled:
    """A layer profile, and what it is a profile of.

    Attributes:
        times: times of the layers, in order.
        kernels: what the builder reported; empty for a graph.
        network: the graph.
        batch: images per run.
        inspected: images that the builder reported shapes for; 0: the same number.
        latency: the latency that the profile belongs to; None if there is none.
        cuda_graph: whether that was measured as one CUDA graph.
        engine: whether an engine was measured; else a graph.
    """

    times: Sequence[LayerTime]
    kernels: Sequence[Kernel] = ()
    network: Network = field(default_factory=Network)
    batch: int = 1
    inspected: int = 0
    latency: Latency | None = None
    cuda_graph: bool | None = None
    engine: bool = True


def explain(profiled: Profiled, peaks: Peaks | None, *, unknown: str = "") -> Explanation:
    """Explain a profile.

    Args:
        profiled: the profile.
        peaks: peak rates of the device; None if they are not known.
        unknown: why they are not known.
    """
    work = work_of(profiled.kernels, profiled.network, batch=profiled.batch, inspected=profiled.inspected)
    times = refined(profiled)
    limits = limits_of(times, work, peaks, launches=profiled.engine)
    nodes = {name: one.nodes for name, one in work.items()}
    h2d, transfer = _copies(profiled.latency)
    floor = launch_ns(times) if profiled.engine else 0.0
    causes = causes_of(
        View(
            flow_of(limits, profiled.kernels, profiled.network, nodes),
            profiled.network,
            profiled.batch,
            peaks,
            h2d,
            transfer,
            floor,
            profiled.cuda_graph,
            profiled.engine,
        )
    )
    shares, attained = time_shares(limits, transfer), attained_share(limits)
    total = sum(time.median_ns for time in times)
    missing = sum(time.median_ns for time in times if time.name not in work)
    return Explanation(
        str(causes[0]) if causes else _nothing(shares, attained),
        causes,
        shares,
        attained,
        limits,
        peaks,
        unknown,
        floor,
        missing / total if profiled.kernels and total else 0.0,
    )


def refined(profiled: Profiled) -> tuple[LayerTime, ...]:
    """The times, with the kind of each layer from what the builder reported of it."""
    work = work_of(profiled.kernels, profiled.network, batch=profiled.batch)
    known = {kernel.name: kernel for kernel in profiled.kernels}
    return tuple(
        dataclasses.replace(time, kind=kind_of(known[time.name], time.kind, work[time.name].macs))
        if time.name in known
        else time
        for time in profiled.times
    )


def _copies(latency: Latency | None) -> tuple[float, float]:
    """Shares of copies to the GPU, and of copies in both directions, in the latency with transfers."""
    parts = latency.parts if latency else None
    if parts is None:
        return 0.0, 0.0
    h2d, compute, d2h = (statistics.median(each) for each in (parts.h2d_ns, parts.compute_ns, parts.d2h_ns))
    whole = h2d + compute + d2h
    return (h2d / whole, (h2d + d2h) / whole) if whole else (0.0, 0.0)


def _nothing(shares: Mapping[TimeKind, float], attained: float | None) -> str:
    rest = sum(share for kind, share in shares.items() if kind != "compute")
    known = f"the engine attains {attained:.0%} of its roofline, and " if attained is not None else ""
    return f"Nothing stands out: {known}conversions, launches and copies take {rest:.0%} of the time."
