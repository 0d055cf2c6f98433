"""Records -> one table, a row a record, with the figures people compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from cnnx.record import Record

RATES = {
    "top-1 agreement": "top1_agreement",
    "top-1 in top-5": "top1_in_top5",
    "top-5 agreement": "top5_agreement",
    "accuracy / original's": "accuracy_ratio",
}
"""Name of a gate -> its column; `_low` and `_high` columns hold the interval."""

_TEXT = ("date", "kind", "network", "precision", "artefact", "digest", "runtime", "device", "verdict")
_COUNTS = ("images", "flips", "samples", "batch", "p50_ns", "p90_ns", "p99_ns", "peak_bytes", "added_bytes")
_NUMBERS = (
    *(f"{column}{bound}" for column in RATES.values() for bound in ("", "_low", "_high")),
    "accuracy_original",
    "accuracy_engine",
    "logit_sqnr_db",
    "mean_ns",
    "coefficient_of_variation",
    "images_per_second",
)
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(_TEXT, pl.String),
    **dict.fromkeys(_COUNTS, pl.Int64),
    **dict.fromkeys(_NUMBERS, pl.Float64),
}


def frame_from_records(records: Iterable[Record]) -> pl.DataFrame:
    """One row a verdict or measurement, in their order. What a record does not hold is null, never 0.

    A diagnosis has figures for each layer, not one row of them: it is left out.

    Runs of any device, runtime and version stand side by side; none are averaged.
    """
    rows = [_row(record) for record in records if record.kind != "diagnosis"]
    return pl.DataFrame(rows, schema=SCHEMA)


def _row(record: Record) -> dict[str, Any]:
    subject, result = record.subject, record.result
    found = {name: getattr(subject, name) for name in _TEXT if hasattr(subject, name)}
    found |= {"date": record.date, "kind": record.kind}
    found |= _judged(result) if record.kind == "validation" else _measured(result)
    return {column: found.get(column) for column in SCHEMA}


def _judged(result: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: result[name] for name in ("verdict", "images", "logit_sqnr_db")}
    found["flips"] = len(result["flips"])
    for gate in result["gates"]:
        column = RATES[gate["name"]]
        found[column] = gate["value"]
        found[f"{column}_low"], found[f"{column}_high"] = gate["interval"]["low"], gate["interval"]["high"]
    if accuracy := result["accuracy"]:
        found |= {"accuracy_original": accuracy["original"], "accuracy_engine": accuracy["engine"]}
    return found


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    latency, memory = result["latency"], result["memory"]
    counts = {"samples": len(latency["samples_ns"]), "batch": latency["batch"]}
    return {**result["figures"], **counts, **{k: memory[k] for k in ("peak_bytes", "added_bytes")}}
