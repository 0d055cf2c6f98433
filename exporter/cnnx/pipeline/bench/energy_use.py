"""What an energy pass came to: figures beside the raw samples that they follow from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.errors import UsageError
from cnnx.machine.state import MachineState
from cnnx.measure.power import EnergyMeasurement, EnergyPerInference, SamplerCost
from cnnx.pipeline.bench.measurement import int8_beside_fp16, pair_name
from cnnx.record import Subject
from cnnx.stats import Interval


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """Energy of one image through one subject. An inference is one image, whatever the batch.

    Attributes:
        subject: what ran.
        batch: pictures a run.
        cuda_graph: the kernels went to the GPU as one CUDA graph; None: there is no such thing here.
        why: this sensor was read.
        total: of the rails that make the whole; None where there is no total.
        no_total: why there is none; empty where there is one.
        rails: each rail by itself; those that failed at a border of load or rest are left out.
        measured: raw samples and what was done when.
        cost: what sampling itself costs in latency; None where it was not measured.
        no_cost: why it was not; empty where it was.
        state_before: clocks and temperatures at rest.
        state_after: the same, right after the last run.
        remark: what the figures do not say.
    """

    subject: Subject
    batch: int
    cuda_graph: bool | None
    why: str
    total: EnergyPerInference | None
    no_total: str
    rails: tuple[EnergyPerInference, ...]
    measured: EnergyMeasurement
    cost: SamplerCost | None
    no_cost: str
    state_before: MachineState
    state_after: MachineState
    remark: str = ""

    @property
    def sensor(self) -> str:
        """Name of the sensor."""
        return self.measured.trace.sensor.name

    @property
    def longest_gap_ns(self) -> int:
        """Between two samples that are too far apart; 0: none are."""
        return max((after - before for before, after in self.measured.trace.gaps_ns), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: figures for readers, and what they were derived from."""
        trace, cost = self.measured.trace, self.cost
        interval = cost.interval if cost else None
        return {
            "subject": dataclasses.asdict(self.subject),
            "batch": self.batch,
            "cuda_graph": self.cuda_graph,
            "rate": self.measured.rate,
            "sensor": self.sensor,
            "why": self.why,
            "uncertainty": dataclasses.asdict(trace.sensor.uncertainty),
            "notes": list(trace.sensor.notes),
            "drivers": list(trace.sensor.drivers),
            "total": dataclasses.asdict(self.total) if self.total else None,
            "no_total": self.no_total,
            "rails": [dataclasses.asdict(rail) for rail in self.rails],
            "doubts": list(self.measured.doubts),
            "inferences": self.measured.load.inferences,
            "dropped": self.measured.load.dropped,
            "sampling": {
                "achieved_hz": trace.achieved_hz,
                "gaps": len(trace.gaps_ns),
                "longest_gap_ns": self.longest_gap_ns,
                "missed": trace.missed,
                "latency_ratio": cost.ratio if cost else None,
                "latency_ratio_low": interval.low if interval else None,
                "latency_ratio_high": interval.high if interval else None,
                "no_cost": self.no_cost,
            },
            "tegrastats": {
                "deviations": self.measured.deviations,
                "lines": beside.lines,
                "reason": beside.reason,
            }
            if (beside := self.measured.beside)
            else None,
            "state_before": self.state_before.as_dict(),
            "state_after": self.state_after.as_dict(),
            "remark": self.remark,
            "measured": self.measured.as_dict(),
            "cost": cost.as_dict() if cost else None,
        }


@dataclass(frozen=True, slots=True)
class Quotient:
    """One energy over another.

    `low` and `high` are quotients of the ends of both 95 % intervals. They hold wherever both intervals do,
    so in at least 90 of 100 cases, and are wider than an interval of the quotient itself would be: what is
    off in both passes alike, as a sensor's calibration is, is in them twice.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} .. {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class EnergyRatio:
    """INT8 beside FP16 of one network at one batch, measured on one device in the same way.

    Attributes:
        gross: INT8's energy of an image over FP16's.
        net: the same without what the machine takes at rest; None where FP16's may be 0.
        engine: INT8's, where several of the network took turns; else empty.
    """

    network: str
    batch: int
    gross: Quotient
    net: Quotient | None
    engine: str = ""

    def __str__(self) -> str:
        net = f"{self.net} net of rest" if self.net else "net of rest not known: FP16's may be 0"
        name = pair_name(self.network, self.engine, self.batch)
        return f"{name}: INT8's energy of an image is {self.gross} of FP16's, {net}"


def ratios_of(uses: Sequence[EnergyUse]) -> tuple[EnergyRatio, ...]:
    """INT8 over FP16, wherever both have a total of the same rails, measured in the same way."""
    found = []
    for int8, fp16, engine in int8_beside_fp16(uses, _way):
        one, other = int8.total, fp16.total
        if one is None or other is None or one.rails != other.rails:
            continue
        gross = _quotient((one.gross_mj, one.gross), (other.gross_mj, other.gross))
        net = _quotient((one.net_mj, one.net), (other.net_mj, other.net))
        if gross is not None:
            found.append(EnergyRatio(int8.subject.network, int8.batch, gross, net, engine))
    return tuple(found)


def _way(use: EnergyUse) -> tuple[object, ...]:
    return use.batch, use.cuda_graph, use.measured.rate, use.sensor


def _quotient(one: tuple[float, Interval], other: tuple[float, Interval]) -> Quotient | None:
    """None where the divisor's interval reaches down to 0."""
    (value, over), (divisor, under) = one, other
    if under.low <= 0:
        return None
    ends = [end / by for end in (over.low, over.high) for by in (under.low, under.high)]
    return Quotient(value / divisor, min(ends), max(ends))


def total_and_rails(
    measured: EnergyMeasurement,
) -> tuple[EnergyPerInference | None, str, tuple[EnergyPerInference, ...]]:
    """The total, why there is none, and each rail. A total of which a reading failed is none either."""
    sensor = measured.trace.sensor
    rails = []
    for rail in sensor.rails:
        with contextlib.suppress(UsageError):
            rails.append(measured.energy([rail.name]))
    try:
        total, no_total = measured.energy(), ""
    except UsageError as error:
        total, no_total = None, f"no total: {error.what}"
    if total is None:
        no_total = no_total or sensor.total.covers
    return total, no_total, tuple(rail for rail in rails if rail is not None)
