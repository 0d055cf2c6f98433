"""The types that the result of an energy record is checked against when it is read.

Fields with a default were added after version 0.1, or are absent if not measured. Floats that may be null are
null if they were not finite, which JSON cannot represent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cnnx.measure.power import EnergyPerInference, EnergyRows, SamplerCost
from cnnx.measure.power.sensors.sensor import Uncertainty
from cnnx.pipeline.records.benchmark import PlainMachineState
from cnnx.record import Subject
from cnnx.schema import Count, Positive, Quantity


@dataclass(frozen=True, slots=True)
class Sampling:
    """How power was sampled, and what that cost in latency."""

    achieved_hz: Quantity | None
    gaps: Count
    longest_gap_ns: Count
    missed: Count
    latency_ratio: Quantity | None
    latency_ratio_low: Quantity | None
    latency_ratio_high: Quantity | None
    no_cost: str = ""


@dataclass(frozen=True, slots=True)
class Tegrastats:
    """Deviation of tegrastats' means from ours, by rail."""

    deviations: Mapping[str, float]
    lines: Count
    reason: str


@dataclass(frozen=True, slots=True)
class Energy:
    """The result of an energy measurement, as `cnnx.pipeline.bench.energy_use.EnergyUse` describes it."""

    subject: Subject
    batch: Positive
    rate: Quantity | None
    sensor: str
    why: str
    total: EnergyPerInference | None
    no_total: str
    rails: tuple[EnergyPerInference, ...]
    doubts: tuple[str, ...]
    inferences: Count
    dropped: Count
    sampling: Sampling
    state_before: PlainMachineState
    state_after: PlainMachineState
    remark: str
    measured: EnergyRows
    cost: SamplerCost | None
    cuda_graph: bool | None = None
    uncertainty: Uncertainty | None = None
    notes: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    tegrastats: Tegrastats | None = None
