"""What one side of a comparison holds, in one form for bundles, runs, surveys and reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cnnx.agreement import Outcomes, recorded_estimates, validation_from_dict
from cnnx.gates import SIMILARITY, Estimate, GateTable
from cnnx.measure.samples import Latency
from cnnx.options import Precision
from cnnx.pipeline.judge.costs import energy_estimate, invalid, latency_estimate, latency_of, memory_of
from cnnx.record import Record, RecordKind, Subject

Source = Literal["bundle", "run", "survey", "report"]


@dataclass(frozen=True, slots=True)
class Judged:
    """Agreement and accuracy of one validation.

    Attributes:
        found: key of a gate -> its estimate, or why there is none.
        outcomes: top-1 class of every image; None if only figures are known.
        proves_nothing: why no verdict is possible, such as stand-in weights; empty if it is.
    """

    subject: Subject
    images: int
    image_set: str
    found: Mapping[str, Estimate | str]
    outcomes: Outcomes | None = None
    proves_nothing: str = ""


@dataclass(frozen=True, slots=True)
class Timed:
    """Latency and memory of one measurement.

    Attributes:
        conditions: name -> value of all that must be equal for two latencies to be compared; unknown values
            are absent.
        p50_ms: median latency, or why it decides nothing.
        p99_ms: 99th percentile, or why there is none.
        memory: which memory the network adds, and how many bytes; or why that is unknown.
        latency: raw samples; None if only figures are known.
        together: names the measurements that took turns with this one; empty: none, or unknown.
    """

    subject: Subject
    batch: int
    conditions: Mapping[str, Any]
    p50_ms: Estimate | str
    p99_ms: Estimate | str
    memory: tuple[str, int] | str
    latency: Latency | None = None
    together: str = ""


@dataclass(frozen=True, slots=True)
class Used:
    """Energy per image of one measurement; see `Timed`. Passes of energy never take turns."""

    subject: Subject
    batch: int
    conditions: Mapping[str, Any]
    gross_mj: Estimate | str
    together: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one network in one precision, on one side of a comparison.

    Attributes:
        judged: validations, oldest first.
        timed: latencies, oldest first.
        used: energies, oldest first.
        sizes: key of a gate on sizes -> size in MiB, or why it is unknown.
        table: gates of its recipe; None if only figures are known.
    """

    network: str
    precision: Precision
    judged: tuple[Judged, ...] = ()
    timed: tuple[Timed, ...] = ()
    used: tuple[Used, ...] = ()
    sizes: Mapping[str, Estimate | str] = field(default_factory=dict)
    table: GateTable | None = None

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The subject of every validation and measurement."""
        return (
            *(one.subject for one in self.judged),
            *(one.subject for one in self.timed),
            *(one.subject for one in self.used),
        )


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: path as the user gave it.
        source: what was read.
        evidence: one for each network and precision.
        notes: what was left out, and why.
    """

    name: str
    source: Source
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...] = ()


def gathered(found: Iterable[Judged | Timed | Used]) -> tuple[Evidence, ...]:
    """Validations and measurements, oldest first, by network and precision."""
    groups: dict[tuple[str, Precision], list[Judged | Timed | Used]] = defaultdict(list)
    for each in found:
        groups[each.subject.network, each.subject.precision].append(each)
    return tuple(
        Evidence(
            network,
            precision,
            judged=tuple(each for each in group if isinstance(each, Judged)),
            timed=tuple(each for each in group if isinstance(each, Timed)),
            used=tuple(each for each in group if isinstance(each, Used)),
        )
        for (network, precision), group in groups.items()
    )


def evidence_of(records: Iterable[Record]) -> tuple[Evidence, ...]:
    """The evidence of checked records, oldest first; the original's own measurements are left out."""
    own = (record for record in records if record.subject.artefact != "original")
    return gathered(_READERS[record.kind](record) for record in own if record.kind in _READERS)


def judged_of(record: Record) -> Judged:
    """A validation record."""
    validation = validation_from_dict(record.result)
    return Judged(
        record.subject,
        validation.images,
        validation.image_set,
        recorded_estimates(validation),
        validation.outcomes,
        "; ".join(validation.reasons),
    )


def timed_of(record: Record) -> Timed:
    """A benchmark record."""
    result, subject = record.result, record.subject
    conditions = result.get("conditions") or {}
    latency = latency_of(record)
    return Timed(
        subject,
        latency.batch,
        {
            "device": subject.device,
            "CUDA graph": conditions.get("cuda_graph"),
            "series": result["figures"]["of"],
            **_machine(record),
        },
        latency_estimate(record, 0.5),
        latency_estimate(record, 0.99),
        memory_of(result.get("memory") or {}),
        None if invalid(result) else latency,
        conditions.get("together", ""),
    )


def used_of(record: Record) -> Used:
    """An energy record."""
    result, subject = record.result, record.subject
    total = result["total"] or {}
    return Used(
        subject,
        result["batch"],
        {
            "device": subject.device,
            "CUDA graph": result.get("cuda_graph"),
            "runs per second": result["rate"],
            "sensor": result["sensor"],
            "rails": total.get("rails"),
            **_machine(record),
        },
        energy_estimate(result),
    )


def _machine(record: Record) -> dict[str, Any]:
    """What of a machine changes its speed; what was not read is absent."""
    known = {"power mode": "power_mode", "cores": "cores", "CPU governor": "cpu_governor"}
    found = {name: record.environment.get(key) for name, key in known.items()}
    states = record.result.get("states") or ()
    limits = [state["power_limit_mw"] for state in states if state.get("power_limit_mw") is not None]
    found["power limit in mW"] = limits[-1] if limits else None
    return {name: value for name, value in found.items() if value is not None}


_READERS: Mapping[RecordKind, Callable[[Record], Judged | Timed | Used]] = {
    "validation": judged_of,
    "judgement": judged_of,
    "benchmark": timed_of,
    "energy": used_of,
}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The conditions in which two measurements differ, with both values; empty if there are none."""
    return "; ".join(
        f"{name} differs: {one[name]} and {other[name]}"
        for name in one
        if name in other and one[name] != other[name]
    )


def rates_of(judged: Judged) -> dict[str, Estimate | str]:
    """The rates of agreement and the divergence of a validation."""
    return {key: judged.found.get(key, "it is unknown") for key in SIMILARITY}
