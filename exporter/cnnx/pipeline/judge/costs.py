"""Estimates of what a bundle costs, from its records and files: latency, memory, energy, sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cnnx.bundle import Bundle
from cnnx.errors import RecordError
from cnnx.gates import COSTS, SIZES, Estimate, Gate, gates_of
from cnnx.measure.bootstrap import middle, resampled_quantiles
from cnnx.measure.samples import Latency, percentile_of, samples_needed
from cnnx.pipeline.judge.demand import Demand
from cnnx.pipeline.records.verified import records_of
from cnnx.record import Record, Subject
from cnnx.schema import Count, from_plain
from cnnx.stats import Interval

_MIB, _MS = 2**20, 1e-6
_LATENCY = {"latency_p50_ms": 0.5, "latency_p99_ms": 0.99}
_TO_MEASURE = "cnnx bench measures it"


def cost_gates(
    bundle: Bundle, subject: Subject, demand: Demand, records: Sequence[Record] | None = None
) -> tuple[Gate, ...]:
    """The gates on costs that are set, decided by the newest measurements of a subject.

    Args:
        bundle: the opened bundle.
        subject: engine or graph, on its device.
        demand: the gates; those that need a base are left out.
        records: records to judge, oldest first; None: the bundle's verified records.
    """
    wanted = demand.limits.set()
    if not wanted.keys() & set(COSTS):
        return ()
    found: dict[str, Estimate | str] = size_estimates(bundle, subject.digest)
    if wanted.keys() & set(COSTS) - set(SIZES):
        among = records_of(bundle).verified if records is None else records
        found |= measured_estimates(among, subject, demand.limits.batch or 1)
    sizes = {*size_keys(bundle), *demand.stated}
    return gates_of(demand.limits, found, [key for key in COSTS if key not in SIZES or key in sizes])


def size_keys(bundle: Bundle) -> tuple[str, ...]:
    """Keys of the gates on sizes that concern a bundle: the engine's only if it has one."""
    return SIZES if bundle.engines() else SIZES[:1]


def size_estimates(bundle: Bundle, digest: str) -> dict[str, Estimate | str]:
    """Sizes of the graph and of the engine with a digest, in MiB; without that engine, of the largest one."""
    engines = bundle.engines()
    own = [engine for engine in engines if engine.digest == digest] or engines
    files = [bundle.path / "engines" / engine.identity / engine.file for engine in own]
    found: dict[str, Estimate | str] = {"graph_mib": Estimate(bundle.model.stat().st_size / _MIB)}
    sizes = [file.stat().st_size for file in files if file.is_file()]
    found["engine_mib"] = Estimate(max(sizes) / _MIB) if sizes else "the bundle has no engine"
    return found


def measured_estimates(records: Sequence[Record], subject: Subject, batch: int) -> dict[str, Estimate | str]:
    """Latency, memory and energy of a subject at one batch size, by its newest records, oldest first."""
    found: dict[str, Estimate | str] = {}
    runs = [each for each in records if each.kind == "benchmark" and same_subject(each.subject, subject)]
    fitting = [each for each in runs if each.result["latency"]["batch"] == batch]
    reason = _missing("latency and memory", batch, [each.result["latency"]["batch"] for each in runs])
    for key, share in _LATENCY.items():
        found[key] = latency_estimate(fitting[-1], share) if fitting else reason
    held = memory_of(fitting[-1].result.get("memory") or {}) if fitting else reason
    found["memory_mib"] = memory_estimate(held)
    passes = [each for each in records if each.kind == "energy" and same_subject(each.subject, subject)]
    used = [each for each in passes if each.result["batch"] == batch]
    without = _missing("energy", batch, [each.result["batch"] for each in passes])
    found["energy_mj"] = energy_estimate(used[-1].result) if used else without
    return found


def _missing(what: str, batch: int, batches: Sequence[Count]) -> str:
    if batches:
        others = ", ".join(map(str, sorted(set(batches))))
        return f"{what} were measured at batch {others}, not at batch {batch}"
    return f"no {what} of this engine or graph on this device: {_TO_MEASURE}"


def same_subject(one: Subject, other: Subject) -> bool:
    """Whether two records are about the same file on the same device."""
    return (one.digest, one.artefact, one.device) == (other.digest, other.artefact, other.device)


def latency_of(record: Record) -> Latency:
    """The samples of a benchmark record.

    Raises:
        RecordError: they are not what a benchmark has.
    """
    plain = record.result["latency"]
    return from_plain(Latency, plain, where=record.date, error=RecordError, at="result.latency")


def latency_estimate(record: Record, share: float) -> Estimate | str:
    """A percentile of the main series of a benchmark, in milliseconds, with its interval; or why none."""
    if reason := invalid(record.result) or _doubtful(record.result, 100 * share):
        return reason
    samples = latency_of(record).main_ns
    enough = samples_needed(share)
    if len(samples) < enough:
        return f"{len(samples)} samples are too few for this percentile: {enough} are needed"
    value = percentile_of(samples, share)
    assert value is not None
    interval = middle(resampled_quantiles(samples, share))
    return Estimate(value * _MS, _scaled(interval, _MS), len(samples), "samples")


def _doubtful(result: Mapping[str, Any], percentile: float) -> str:
    """Why a percentile of a valid benchmark decides nothing; empty if it is valid, or was not judged."""
    judged = (result.get("validity") or {}).get("percentiles") or ()
    reasons = [each["reason"] for each in judged if math.isclose(each["percentile"], percentile)]
    return f"p{percentile:g} is invalid: {reasons[0]}" if any(reasons) else ""


def invalid(result: Mapping[str, Any]) -> str:
    """Why the latency of a benchmark decides nothing; empty if it is valid."""
    validity = result.get("validity") or {"valid": True, "findings": ()}
    rules = ", ".join(finding["rule"] for finding in validity["findings"])
    return "" if validity["valid"] else f"the measurement is invalid ({rules})"


def memory_estimate(found: tuple[str, int] | str) -> Estimate | str:
    """What `memory_of` found, in MiB."""
    return found if isinstance(found, str) else Estimate(found[1] / _MIB)


def memory_of(memory: Mapping[str, Any]) -> tuple[str, int] | str:
    """Which memory a network adds, and how many bytes; or why that is unknown.

    On a GPU it is the process's GPU memory without CUDA's context, on a Jetson the shared memory, and else
    the peak of the host's memory without the runtime's libraries.
    """
    gpu, context = memory.get("gpu_bytes"), memory.get("context_bytes")
    if gpu is not None and context is not None:
        return "GPU memory", max(0, gpu - context)
    if (shared := memory.get("shared_bytes")) is not None:
        return "shared memory", shared
    if (added := memory.get("added_bytes")) is not None:
        return "host peak", max(0, added)
    return "memory could not be measured"


def energy_estimate(result: Mapping[str, Any]) -> Estimate | str:
    """Gross energy per image in millijoules, with its interval; or why there is none."""
    if result["doubts"]:
        return f"the energy is doubtful: {result['doubts'][0]}"
    if (total := result["total"]) is None:
        return f"there is no total: {result['no_total']}"
    return Estimate(total["gross_mj"], Interval(total["gross"]["low"], total["gross"]["high"]))


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.low * factor, interval.high * factor)
