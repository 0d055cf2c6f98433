"""The rows of a report: the figures people compare, one row for each record."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any

import polars as pl

from cnnx.gates import AGREEMENT, KINDS
from cnnx.record import Record, Unverified

RATES = {KINDS[key].name: key for key in AGREEMENT}
"""Name of a gate -> its column; `_low` and `_high` columns hold the interval."""

_SUBJECT = ("network", "precision", "artefact", "engine", "digest", "runtime", "device")
_TEXT = ("date", "kind", *_SUBJECT, "verdict", "sensor", "covers", "of", "ended", "file", "unverified")
_FLAGS = ("cuda_graph", "valid")
_COUNTS = ("images", "flips", "samples", "batch", "p50_ns", "p90_ns", "p99_ns", "peak_bytes", "added_bytes")
_STREAMS = ("streams", "frames", "missed")
_MEMORY = ("libraries_bytes", "context_bytes", "gpu_bytes", "shared_bytes", "scratch_bytes", "io_bytes")
_ENERGY = ("gross_mj", "gross_mj_low", "gross_mj_high", "net_mj", "net_mj_low", "net_mj_high")
_POWER = ("power_mw", "idle_before_mw", "idle_after_mw")
_ACCURACY = ("accuracy_original", "accuracy_engine", "logit_sqnr_db")
_TIMES = ("p50_ns_low", "p50_ns_high", "mean_ns", "coefficient_of_variation", "images_per_second")
_RATES = tuple(f"{column}{bound}" for column in RATES.values() for bound in ("", "_low", "_high"))
_LOAD = ("fps", "fairness", "seconds", "throttled_share", "drift", "drift_low", "drift_high")
_NUMBERS = (*_RATES, *_ACCURACY, *_TIMES, *_ENERGY, *_POWER, "rate", *_LOAD)
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(_TEXT, pl.String),
    **dict.fromkeys(_FLAGS, pl.Boolean),
    **dict.fromkeys((*_COUNTS, *_STREAMS, *_MEMORY), pl.Int64),
    **dict.fromkeys(_NUMBERS, pl.Float64),
}


@cache
def row_type() -> Any:
    """A dataclass for a row of the table as JSON: every column may be null or absent."""
    kinds: dict[Any, Any] = {pl.String: str, pl.Boolean: bool, pl.Int64: int, pl.Float64: float}
    fields: list[Any] = [(name, kinds[kind] | None, field(default=None)) for name, kind in SCHEMA.items()]
    return make_dataclass("ReportRow", fields, frozen=True)


def rows_of(records: Iterable[Record], unverified: Iterable[Unverified] = ()) -> list[dict[str, Any]]:
    """One row a verdict or measurement, in their order. What a record does not hold is null, never 0.

    Streams have a row for each number of streams.

    A plot's energy is that of the board's total; where there is none it is null, and `covers` says why.

    Of an unverified record there is who it is of and, in `unverified`, why its figures are left out.

    Diagnoses and searches have figures for each layer or placement, not one row: they are left out.

    Runs of any device, runtime and version stand side by side; none are averaged.
    """
    rows = [
        row
        for record in records
        if record.kind in _READERS or record.kind == "streams"
        for row in _rows(record)
    ]
    return rows + [_unverified(one) for one in unverified]


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The rows as a table with a type for each column."""
    return pl.DataFrame(rows, schema=SCHEMA)


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    subject, result = record.subject, record.result
    found = {name: getattr(subject, name) for name in _SUBJECT}
    found |= {"date": record.date, "kind": record.kind}
    each = _counted(result) if record.kind == "streams" else [_READERS[record.kind](result)]
    yield from ({column: (found | more).get(column) for column in SCHEMA} for more in each)


def _unverified(one: Unverified) -> dict[str, Any]:
    found: dict[str, Any] = {"file": one.file, "unverified": one.reason}
    if one.record is not None:
        found |= {column: getattr(one.record.subject, column) for column in _SUBJECT}
        found |= {"date": one.record.date, "kind": one.record.kind}
    return {column: found.get(column) for column in SCHEMA}


def _judged(result: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: result[name] for name in ("verdict", "images", "logit_sqnr_db")}
    found["flips"] = len(result["flips"])
    for gate in result["gates"]:
        if gate["name"] not in RATES:
            continue
        column, interval = RATES[gate["name"]], gate["interval"] or {}
        found[column] = gate["value"]
        found |= {f"{column}_{side}": interval.get(side) for side in ("low", "high")}
    if divergence := result.get("divergence"):
        found["divergence_nats"] = divergence["mean"]
        found |= {f"divergence_nats_{side}": divergence["interval"][side] for side in ("low", "high")}
    if accuracy := result["accuracy"]:
        found |= {"accuracy_original": accuracy["original"], "accuracy_engine": accuracy["engine"]}
    return found


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    latency = result["latency"]
    samples = latency["parts"]["compute_ns"] if latency.get("parts") else latency["samples_ns"]
    counts = {"samples": len(samples), "batch": latency["batch"]}
    flags = {
        "cuda_graph": (result.get("conditions") or {}).get("cuda_graph"),
        "valid": (result.get("validity") or {}).get("valid"),
    }
    interval = result["figures"].get("p50_interval") or {}
    bounds = {f"p50_ns_{side}": interval.get(side) for side in ("low", "high")}
    return {**result["figures"], **bounds, **counts, **flags, **result["memory"]}


def _used(result: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: result[name] for name in ("batch", "rate", "sensor")}
    found["cuda_graph"] = result.get("cuda_graph")
    total = result["total"]
    if total is None:
        return {**found, "covers": result["no_total"]}
    found |= {name: total[name] for name in ("covers", "gross_mj", "net_mj", *_POWER)}
    for side in ("gross", "net"):
        found[f"{side}_mj_low"], found[f"{side}_mj_high"] = total[side]["low"], total[side]["high"]
    return found


def _tested(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("verdict", "images")}


def _counted(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for count in result["counts"]:
        found = {name: result[name] for name in ("batch", "cuda_graph", "fps", "of")}
        keys = ("streams", "images_per_second", "fairness", "p50_ns", "frames", "missed")
        found |= {name: count[name] for name in keys}
        if result["percentile"] in (90, 99):
            found[f"p{result['percentile']:g}_ns"] = count["percentile_ns"]
        yield {**found, "valid": count["validity"]["valid"], **count["memory"]}


def _soaked(result: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: result[name] for name in ("batch", "cuda_graph", "of", "images_per_second", "seconds")}
    found |= {"ended": result["ended"], "throttled_share": result["throttled_share"]}
    found |= {"p50_ns": statistics.median_low([window["p50_ns"] for window in result["windows"]])}
    powers = [window["power_mw"] for window in result["windows"] if window["power_mw"] is not None]
    found |= {"power_mw": statistics.median(powers)} if powers else {}
    found["valid"] = result["validity"]["valid"]
    if drift := result["drift"]:
        found["drift"] = drift["ends"]
        found |= {f"drift_{side}": drift["ends_interval"][side] for side in ("low", "high")}
    return found


_READERS = {
    "validation": _judged,
    "judgement": _judged,
    "selftest": _tested,
    "benchmark": _measured,
    "energy": _used,
    "soak": _soaked,
}
