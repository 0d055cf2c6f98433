"""Types of the JSON that each command prints with `--json`."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cnnx import agreement
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import Manifest
from cnnx.gates import Gate
from cnnx.machine.state import MachineState
from cnnx.measure.comparing import Outcome
from cnnx.pipeline.bench.bench import BenchResult
from cnnx.pipeline.bench.energy_use import EnergyUse
from cnnx.pipeline.bench.load.soak import SoakMeasurement
from cnnx.pipeline.bench.load.stream_counts import StreamsMeasurement
from cnnx.pipeline.bench.measurement import Advice, Measurement, Unmeasured
from cnnx.pipeline.bench.trtexec import Compared
from cnnx.pipeline.bom.bom import BomResult
from cnnx.pipeline.build import BuildResult
from cnnx.pipeline.cache import CacheUse
from cnnx.pipeline.classify.classify import ClassifyResult
from cnnx.pipeline.compare.changes import Change
from cnnx.pipeline.compare.changes import Outcome as Outcomes
from cnnx.pipeline.diagnose.diagnose import DiagnoseResult
from cnnx.pipeline.diagnose.findings import Findings
from cnnx.pipeline.doctor.doctor import DoctorResult
from cnnx.pipeline.export.calibrate import CalibrateResult
from cnnx.pipeline.export.result import ExportResult
from cnnx.pipeline.fleet.calibrate import FleetCalibrateResult
from cnnx.pipeline.fleet.cluster.join import JoinResult
from cnnx.pipeline.fleet.cluster.outcomes import HostsResult
from cnnx.pipeline.fleet.cluster.status import FleetStatus
from cnnx.pipeline.fleet.survey import FleetSurveyResult
from cnnx.pipeline.fleet.validate import FleetValidateResult
from cnnx.pipeline.init import InitResult
from cnnx.pipeline.inspect import Inspection
from cnnx.pipeline.networks import Network
from cnnx.pipeline.preflight.preflight import PreflightResult
from cnnx.pipeline.records import benchmark, diagnosis, energy, load, tuning
from cnnx.pipeline.sign.sign import SignResult
from cnnx.pipeline.sign.verify import VerifyResult
from cnnx.pipeline.survey.journal import StoredRow
from cnnx.pipeline.survey.proof import Proof
from cnnx.pipeline.tune.findings import Tuning
from cnnx.pipeline.tune.result import TuneResult
from cnnx.pipeline.validate import ValidateResult
from cnnx.record import LayerRow, Record, Subject
from cnnx.report.document import Card
from cnnx.schema import Count, Positive
from cnnx.stats import Interval, Verdict

_RECORDED = "cnnx.pipeline.records."


@dataclass(frozen=True, slots=True)
class PrintedBundle:
    """A bundle: its folder, and the content of manifest.json without its seal."""

    path: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class PrintedUnmeasured:
    """Why a subject was not measured at a batch size."""

    subject: Subject
    batch: Positive
    reason: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class PrintedAdvice:
    """INT8 compared with FP16 for one network, as `cnnx.pipeline.bench.measurement.Advice` describes it."""

    network: str
    engine: str
    batch: Positive
    ratio: float
    interval: Interval
    rounds: Count
    outcome: Outcome
    recommended: Literal["fp16", "int8"] | None
    undecided: str


@dataclass(frozen=True, slots=True)
class PrintedCompared:
    """A figure beside trtexec's, as `cnnx.pipeline.bench.trtexec.Compared` describes it."""

    what: str
    ours: float
    theirs: float
    difference: float | None
    agrees: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the layers."""

    parameters: Count
    multiply_adds: Count
    activation_bytes: Count


@dataclass(frozen=True, slots=True)
class PrintedArchitecture:
    """A network layer by layer; the first layer is the input image."""

    name: str
    title: str
    layers: tuple[LayerRow, ...]
    totals: Totals


@dataclass(frozen=True, slots=True)
class PrintedReport:
    """Where a report was written, and its cards."""

    files: tuple[str, ...]
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class PrintedSurvey:
    """A survey's folder and its rows, in order."""

    folder: str
    rows: tuple[StoredRow, ...]


_CHANGE = typing.get_type_hints(Change)
PrintedChange: Any = dataclasses.make_dataclass(
    "PrintedChange",
    [*((f.name, _CHANGE[f.name]) for f in dataclasses.fields(Change)), ("outcome", Outcomes)],
    frozen=True,
)
PrintedChange.__doc__ = (
    "One value of the base and of what is new, as `cnnx.pipeline.compare.changes.Change` describes it."
)


@dataclass(frozen=True, slots=True)
class PrintedPair:
    """One network of a comparison; `verdict` is null if no gate is set."""

    network: str
    base: str
    new: str
    gates: tuple[Gate, ...]
    changes: tuple[PrintedChange, ...]
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class PrintedComparison:
    """A comparison of two paths; `verdict` is null if no gate is set."""

    base: str
    new: str
    verdict: Verdict | None
    pairs: tuple[PrintedPair, ...]
    notes: tuple[str, ...]


_FORMS: Mapping[Any, Any] = {
    Bundle: PrintedBundle,
    Path: str,
    Measurement: benchmark.Benchmark,
    EnergyUse: energy.Energy,
    StreamsMeasurement: load.Streams,
    SoakMeasurement: load.Soak,
    Findings: diagnosis.Diagnosis,
    Tuning: tuning.PlainTuning,
    MachineState: benchmark.PlainMachineState,
    agreement.Likeness: diagnosis.PlainLikeness,
    Unmeasured: PrintedUnmeasured,
    Advice: PrintedAdvice,
    Compared: PrintedCompared,
}
# Their floats are finite, or their types state where null may occur.
_AS_THEY_ARE = (agreement.Validation, Manifest, Record, LayerRow, Subject)

COMMANDS: Mapping[str, Any] = {
    "list": tuple[Network, ...],
    "show": PrintedArchitecture,
    "init": InitResult,
    "export": ExportResult,
    "calibrate": CalibrateResult,
    "build": BuildResult,
    "preflight": PreflightResult,
    "validate": ValidateResult,
    "classify": ClassifyResult,
    "bench": BenchResult,
    "compare": PrintedComparison,
    "survey": PrintedSurvey,
    "report": PrintedReport,
    "diagnose": DiagnoseResult,
    "tune": TuneResult,
    "inspect": Inspection,
    "sign": SignResult,
    "verify": VerifyResult,
    "bom": BomResult,
    "cache": CacheUse,
    "doctor": DoctorResult,
    "doctor --proof": Proof,
    "fleet survey": FleetSurveyResult,
    "fleet validate": FleetValidateResult,
    "fleet calibrate": FleetCalibrateResult,
    "fleet join": JoinResult,
    "fleet up": HostsResult,
    "fleet status": FleetStatus,
    "fleet down": HostsResult,
}
"""Command -> type of its result."""


@functools.cache
def printed(kind: Any) -> Any:
    """The plain form of a type, in which a float may be null if it is not finite."""
    if kind in _FORMS:
        return _FORMS[kind]
    if kind is float:
        return float | None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return kind
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(printed(member) for member in arguments)]  # noqa: UP007
    if origin is not None and origin is not Literal:
        inner = tuple(each if each is Ellipsis else printed(each) for each in arguments)
        if inner[0] is int and len(inner) == 2 and issubclass(origin, Mapping):
            inner = (str, inner[1])  # keys of JSON are text
        return origin[inner]
    if (
        dataclasses.is_dataclass(kind)
        and kind not in _AS_THEY_ARE
        and not kind.__module__.startswith(_RECORDED)
    ):
        return _printed_fields(typing.cast(type, kind))
    return kind


def _printed_fields(kind: type) -> type:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: list[Any] = [(f.name, printed(hints[f.name])) for f in dataclasses.fields(kind)]
    if all(form == hints[name] for name, form in fields):
        return kind
    made = dataclasses.make_dataclass(kind.__name__, fields, frozen=True, kw_only=True)
    made.__doc__ = kind.__doc__
    return made
