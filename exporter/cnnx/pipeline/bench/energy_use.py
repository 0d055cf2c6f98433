"""The result of an energy pass: figures, and the raw samples they are computed from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.errors import UsageError
from cnnx.machine.state import MachineState
from cnnx.measure.power import EnergyMeasurement, EnergyPerInference, SamplerCost
from cnnx.pipeline.bench.measurement import int8_with_fp16, pair_name
from cnnx.record import Subject
from cnnx.stats import Interval


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """Energy per image of one subject. An inference is one image, whatever the batch.

    Attributes:
        subject: what ran.
        batch: images per run.
        cuda_graph: whether the kernels were launched as one CUDA graph; None: not supported here.
        why: why this sensor was read.
        total: energy of the rails that make up the whole; None if it could not be computed.
        no_total: why `total` is None; empty if it is not.
        rails: energy of each rail, except those whose reading failed at a boundary of load or rest.
        measured: raw samples, and the times of load and rest.
        cost: latency cost of sampling; None if it was not measured.
        no_cost: why the cost was not measured; empty if it was.
        state_before: clocks and temperatures at rest.
        state_after: clocks and temperatures right after the last run.
        remark: what a reader must know in addition to the figures.
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
        """Longest time between two samples that are too far apart; 0: none are."""
        return max((after - before for before, after in self.measured.trace.gaps_ns), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the figures, and the data they are computed from."""
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
                "lines": tegrastats.lines,
                "reason": tegrastats.reason,
            }
            if (tegrastats := self.measured.beside)
            else None,
            "state_before": self.state_before.as_dict(),
            "state_after": self.state_after.as_dict(),
            "remark": self.remark,
            "measured": self.measured.as_dict(),
            "cost": cost.as_dict() if cost else None,
        }


@dataclass(frozen=True, slots=True)
class Quotient:
    """Ratio of two energies.

    `low` and `high` are quotients of the ends of both 95 % intervals. They hold whenever both intervals do,
    so in at least 90 of 100 cases. They are wider than an interval of the ratio itself, as errors common to
    both passes, such as a sensor's calibration, count twice.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} .. {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class EnergyRatio:
    """INT8 compared with FP16 of one network at one batch, measured on one device in the same way.

    Attributes:
        network: name of the network.
        batch: images per run.
        gross: INT8's energy per image over FP16's.
        net: the same without the machine's energy at rest; None if FP16's net energy may be 0.
        engine: the INT8 engine if several engines of the network were measured; else empty.
    """

    network: str
    batch: int
    gross: Quotient
    net: Quotient | None
    engine: str = ""

    def __str__(self) -> str:
        net = f"{self.net} above idle" if self.net else "unknown above idle, as FP16's may be 0"
        name = pair_name(self.network, self.engine, self.batch)
        return f"{name}: INT8 uses {self.gross} times the energy per image of FP16, {net}"


def ratios_of(uses: Sequence[EnergyUse]) -> tuple[EnergyRatio, ...]:
    """Ratios of INT8 to FP16, where both have a total of the same rails, measured in the same way."""
    found = []
    for int8, fp16, engine in int8_with_fp16(uses, _conditions):
        one, other = int8.total, fp16.total
        if one is None or other is None or one.rails != other.rails:
            continue
        gross = _quotient((one.gross_mj, one.gross), (other.gross_mj, other.gross))
        net = _quotient((one.net_mj, one.net), (other.net_mj, other.net))
        if gross is not None:
            found.append(EnergyRatio(int8.subject.network, int8.batch, gross, net, engine))
    return tuple(found)


def _conditions(use: EnergyUse) -> tuple[object, ...]:
    return use.batch, use.cuda_graph, use.measured.rate, use.sensor


def _quotient(one: tuple[float, Interval], other: tuple[float, Interval]) -> Quotient | None:
    """The ratio; None if the divisor's interval includes 0."""
    (value, over), (divisor, under) = one, other
    if under.low <= 0:
        return None
    ends = [end / by for end in (over.low, over.high) for by in (under.low, under.high)]
    return Quotient(value / divisor, min(ends), max(ends))


def total_and_rails(
    measured: EnergyMeasurement,
) -> tuple[EnergyPerInference | None, str, tuple[EnergyPerInference, ...]]:
    """The total (None if one of its readings failed), the reason if there is none, and each rail."""
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
