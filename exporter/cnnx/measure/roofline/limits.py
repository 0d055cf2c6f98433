"""The roofline: the least time that a device needs for a layer, and how much of it the layer attains.

A layer cannot be faster than its MACs at the peak rate of their type, nor than its bytes at the peak
bandwidth (Williams, Waterman and Patterson 2009). A short layer is limited by its launch, which the model of
Wang et al. (arXiv:2009.04598) adds to the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from cnnx.measure.roofline.chips import Multiplies
from cnnx.measure.roofline.peaks import Peaks
from cnnx.measure.roofline.work import LayerWork
from cnnx.runtimes.layer_times import LayerKind, LayerTime
from cnnx.schema import Count, Quantity

Bound = Literal["compute", "memory", "launch", ""]
"""What limits a layer; empty if that is not known, or the layer takes no time."""

TimeKind = Literal["compute", "launch", "cast", "reformat", "quantize", "transfer"]
"""Where time goes: layers, layers as short as a launch, conversions of data, copies to and from the GPU."""

TIME_KINDS: tuple[TimeKind, ...] = ("compute", "launch", "cast", "reformat", "quantize", "transfer")
# No layer takes less than its launch and the events around it, which is 3 to 10 us in NVIDIA's examples
# (tools/check/engine_explorer.py). If the shortest layer takes more than this, launches do not matter.
_LAUNCH_NS = (2_000.0, 15_000.0)
# Limited by its launch is a layer that takes no longer than two launches, and its work no longer than half of
# one; where its work is not known, a layer that takes no longer than one and a half.
_LITTLE, _SHORT, _SHORTER = 0.5, 2.0, 1.5


@dataclass(frozen=True, slots=True)
class LayerLimit:
    """One layer against the roofline. What is not known is null.

    Attributes:
        name: the runtime's name for it.
        kind: "compute", or the kind of a conversion.
        median_ns: its measured time.
        type: type that it multiplies in; empty if it does not, or if that is unknown.
        macs: MACs of the batch.
        weight_bytes: constants, read once.
        data_bytes: tensors that it reads and writes.
        compute_ns: least time for the MACs.
        memory_ns: least time for the bytes.
        bound: what limits it.
    """

    name: str
    kind: LayerKind
    median_ns: Quantity
    type: str = ""
    macs: Count | None = None
    weight_bytes: Count | None = None
    data_bytes: Count | None = None
    compute_ns: Quantity | None = None
    memory_ns: Quantity | None = None
    bound: Bound = ""

    @property
    def limit_ns(self) -> float | None:
        """Least time; None if not known."""
        if self.compute_ns is None or self.memory_ns is None:
            return None
        return max(self.compute_ns, self.memory_ns)

    @property
    def attained(self) -> float | None:
        """Least time over measured time; above 1 if data stayed in the cache."""
        return None if self.limit_ns is None or not self.median_ns else self.limit_ns / self.median_ns

    @property
    def nbytes(self) -> int | None:
        """All bytes."""
        if self.weight_bytes is None or self.data_bytes is None:
            return None
        return self.weight_bytes + self.data_bytes

    @property
    def intensity(self) -> float | None:
        """Operations per byte, two for each MAC; None without either."""
        return 2 * self.macs / self.nbytes if self.macs and self.nbytes else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the figures that follow."""
        derived = {name: getattr(self, name) for name in ("limit_ns", "attained", "intensity")}
        return {**dataclasses.asdict(self), **derived}


def limits_of(
    times: Sequence[LayerTime], work: Mapping[str, LayerWork], peaks: Peaks | None, *, launches: bool
) -> tuple[LayerLimit, ...]:
    """Each profiled layer against the roofline, in order.

    Args:
        times: times of the layers.
        work: work of a layer by its name.
        peaks: peak rates; None: unknown.
        launches: whether layers are launched one by one, as on a GPU.
    """
    floor = launch_ns(times) if launches else 0.0
    return tuple(_limit(time, work.get(time.name), peaks, floor) for time in times)


def launch_ns(times: Iterable[LayerTime]) -> float:
    """Time of the shortest layer, most of which is its launch; 0 if all layers take longer than a launch."""
    least, most = _LAUNCH_NS
    shortest = min((time.median_ns for time in times if time.median_ns > 0), default=0.0)
    return max(least, shortest) if 0 < shortest <= most else 0.0


def time_shares(layers: Sequence[LayerLimit], transfer: float = 0.0) -> dict[TimeKind, float]:
    """Share of the time by kind, 0..1; empty if no time was measured.

    Args:
        layers: all layers.
        transfer: share of copies in the latency with transfers; the layers share the rest.
    """
    total = sum(layer.median_ns for layer in layers)
    if not total:
        return {}
    spent = dict.fromkeys(TIME_KINDS, 0.0)
    for layer in layers:
        short = layer.kind == "compute" and layer.bound == "launch"
        spent["launch" if short else layer.kind] += layer.median_ns
    shares = {kind: min(1.0, time / total * (1 - transfer)) for kind, time in spent.items()}
    return {**shares, "transfer": transfer}


def attained_share(layers: Sequence[LayerLimit]) -> float | None:
    """Least time of the layers over the time of layers and conversions; None if unknown for over a tenth.

    Conversions count with their time alone: an ideal engine has none.
    """
    total = sum(layer.median_ns for layer in layers)
    limits = {layer: layer.limit_ns for layer in layers if layer.kind == "compute"}
    unknown = sum(layer.median_ns for layer, limit in limits.items() if limit is None)
    if not total or unknown > 0.1 * total:
        return None
    return sum(limit for limit in limits.values() if limit is not None) / (total - unknown)


def _limit(time: LayerTime, work: LayerWork | None, peaks: Peaks | None, floor: float) -> LayerLimit:
    nbytes = work.nbytes if work else None
    compute = _compute_ns(work, peaks) if work and peaks else None
    memory = 1e9 * nbytes / peaks.bandwidth if peaks and nbytes is not None else None
    return LayerLimit(
        time.name,
        time.kind,
        time.median_ns,
        work.type if work else "",
        work.macs if work else None,
        work.weight_bytes if work else None,
        work.data_bytes if work else None,
        compute,
        memory,
        _bound(time.median_ns, compute, memory, floor),
    )


def _compute_ns(work: LayerWork, peaks: Peaks) -> float | None:
    if work.macs is None:
        return None
    if not work.macs:
        return 0.0
    rate = peaks.operations.get(cast(Multiplies, work.type))
    return 2e9 * work.macs / rate if rate else None


def _bound(time_ns: float, compute: float | None, memory: float | None, floor: float) -> Bound:
    if not time_ns:
        return ""
    if compute is None or memory is None:
        return "launch" if time_ns <= _SHORTER * floor and not compute and not memory else ""
    if time_ns <= _SHORT * floor and max(compute, memory) <= _LITTLE * floor:
        return "launch"
    return "compute" if compute >= memory else "memory"
