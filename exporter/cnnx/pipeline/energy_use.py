"""What an energy pass came to: figures beside the raw samples that they follow from."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Any

from cnnx.errors import UsageError
from cnnx.measure.power import EnergyMeasurement, EnergyPerInference, SamplerCost
from cnnx.measure.state import MachineState
from cnnx.record import Subject


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """Energy of one picture through one subject. An inference is one picture, whatever the batch.

    Attributes:
        subject: what ran.
        batch: pictures a run.
        cuda_graph: the kernels went to the GPU as one CUDA graph; None: there is no such thing here.
        why: this sensor was read.
        total: of the rails that make the whole; None where there is no total.
        no_total: why there is none; empty where there is one.
        rails: each rail by itself; those that failed at a border of load or rest are left out.
        measured: raw samples and what was done when.
        cost: what sampling itself costs in latency.
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
    cost: SamplerCost
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
        trace, cost = self.measured.trace, self.cost.interval
        return {
            "subject": dataclasses.asdict(self.subject),
            "batch": self.batch,
            "cuda_graph": self.cuda_graph,
            "rate": self.measured.rate,
            "sensor": self.sensor,
            "why": self.why,
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
                "latency_ratio": self.cost.ratio,
                "latency_ratio_low": cost.low,
                "latency_ratio_high": cost.high,
            },
            "state_before": self.state_before.as_dict(),
            "state_after": self.state_after.as_dict(),
            "remark": self.remark,
            "measured": self.measured.as_dict(),
            "cost": self.cost.as_dict(),
        }


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
