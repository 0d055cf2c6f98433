"""The types that the result of a benchmark record is checked against when it is read.

Fields with a default were added after version 0.1, or are absent if not measured. Floats that may be null are
null if they were not finite, which JSON cannot represent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnx.measure.roofline.causes import Cause
from cnnx.measure.roofline.limits import Bound, TimeKind
from cnnx.measure.roofline.peaks import Peaks
from cnnx.measure.samples import Latency
from cnnx.measure.verdict import PercentileVerdict, ValidityFinding
from cnnx.pipeline.bench.measurement import Conditions, Prediction
from cnnx.record import Subject
from cnnx.runtimes.layer_times import LayerKind, LayerTime
from cnnx.schema import Count, Positive, Quantity, Rate
from cnnx.stats import Interval


@dataclass(frozen=True, slots=True)
class PlainFigures:
    """Figures of a series of times, as `cnnx.measure.figures.Figures` describes them."""

    p50_ns: Count | None
    p90_ns: Count | None
    p99_ns: Count | None
    mean_ns: Quantity
    coefficient_of_variation: Quantity | None
    percentile: Quantity = 99.0
    percentile_ns: Count | None = None
    percentile_bound_ns: Count | None = None
    p50_interval: Interval | None = None
    mean_interval: Interval | None = None
    block: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainFirstFigures(PlainFigures):
    """Figures of the main series; `of` names it."""

    of: str = "end to end"
    images_per_second: Quantity


@dataclass(frozen=True, slots=True)
class PlainFootprint:
    """Memory in bytes, as `cnnx.measure.footprint.Footprint` describes it; null: unknown."""

    before_bytes: Count | None
    peak_bytes: Count | None
    after_bytes: Count | None
    added_bytes: int | None
    libraries_bytes: int | None = None
    context_bytes: Count | None = None
    gpu_bytes: Count | None = None
    shared_bytes: Count | None = None
    scratch_bytes: Count | None = None
    io_bytes: Count | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class PlainValidity:
    """Whether a latency is valid, as `cnnx.measure.validity.Validity` describes it."""

    valid: bool
    findings: tuple[ValidityFinding, ...]
    remarks: tuple[ValidityFinding, ...]
    percentiles: tuple[PercentileVerdict, ...] = ()


@dataclass(frozen=True, slots=True)
class PlainFrequency:
    """A clock, as `cnnx.machine.state.Frequency` describes it; `pinned`: both bounds are equal."""

    now_mhz: Quantity | None
    least_mhz: Quantity | None
    most_mhz: Quantity | None
    pinned: bool | None


@dataclass(frozen=True, slots=True)
class PlainMachineState:
    """A snapshot of the machine, as `cnnx.machine.state.MachineState` describes it."""

    cpu: PlainFrequency | None
    gpu: PlainFrequency | None
    gpu_memory: PlainFrequency | None
    temperatures_c: Mapping[str, float]
    throttling: tuple[str, ...] | None
    limits_c: Mapping[str, float] = field(default_factory=dict)
    power_mode: str | None = None
    power_limit_mw: Count | None = None
    held_ns: Mapping[str, Count] | None = None
    confidential: bool | None = None
    at_ns: Count | None = None


@dataclass(frozen=True, slots=True)
class PlainLimit:
    """A layer against the roofline, as `cnnx.measure.roofline.limits.LayerLimit` describes it."""

    name: str
    kind: LayerKind
    median_ns: Quantity
    type: str
    macs: Count | None
    weight_bytes: Count | None
    data_bytes: Count | None
    compute_ns: Quantity | None
    memory_ns: Quantity | None
    bound: Bound
    limit_ns: Quantity | None
    attained: Quantity | None
    intensity: Quantity | None


@dataclass(frozen=True, slots=True)
class PlainExplanation:
    """Why layers take their time, as `cnnx.measure.roofline.explanation.Explanation` describes it."""

    sentence: str
    causes: tuple[Cause, ...]
    shares: Mapping[TimeKind, Rate]
    attained: Quantity | None
    layers: tuple[PlainLimit, ...]
    peaks: Peaks | None
    unknown: str
    launch_ns: Quantity
    unmatched: Rate


@dataclass(frozen=True, slots=True)
class PlainProfile:
    """Time by layer, the share of the time by kind of layer, and why it is so."""

    runs: Count
    shares: Mapping[LayerKind, Rate]
    layers: tuple[LayerTime, ...]
    explanation: PlainExplanation | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The result of a benchmark, as `cnnx.pipeline.bench.measurement.Measurement` describes it."""

    subject: Subject
    figures: PlainFirstFigures
    latency: Latency
    memory: PlainFootprint
    remark: str
    series: Mapping[str, PlainFigures] = field(default_factory=dict)
    predicted: Prediction | None = None
    conditions: Conditions | None = None
    validity: PlainValidity | None = None
    states: tuple[PlainMachineState, ...] = ()
    layers: PlainProfile | None = None

    def __post_init__(self) -> None:
        parts = self.latency.parts
        if parts is None:
            if self.figures.of != "end to end":
                raise ValueError(f"figures.of is {self.figures.of!r}, but latency.parts is null")
        elif len({len(parts.enqueue_ns), len(parts.h2d_ns), len(parts.compute_ns), len(parts.d2h_ns)}) > 1:
            raise ValueError("the lists of latency.parts differ in length")
        elif not parts.compute_ns:
            raise ValueError("the lists of latency.parts are empty")
