"""Reads a side of a comparison: a bundle, a run in its runs/, a survey's folder or a report in JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle, is_bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.errors import RecordError
from cnnx.pipeline.compare.evidence import Evidence, Side, evidence_of
from cnnx.pipeline.compare.rows import report_evidence, row_evidence, rows_in
from cnnx.pipeline.judge.costs import size_estimates
from cnnx.pipeline.records.files import KINDS, is_report, plain_in, record_in
from cnnx.pipeline.records.verified import records_of
from cnnx.pipeline.survey.journal import is_survey, read_rows
from cnnx.record import RecordKind, Subject

_COMPARED: tuple[RecordKind, ...] = ("validation", "judgement", "benchmark", "energy")
# Measurements that are not compared, and why.
_ALONE: dict[RecordKind, str] = {
    "streams": "numbers of streams have no interval to compare by",
    "soak": "a soak shows the course of one run",
    "tuning": "a search compares placements of one bundle",
}


def read_side(path: Path) -> Side:
    """Read one side of a comparison.

    Raises:
        RecordError: the path does not exist, is none of the four, is damaged, or holds nothing to compare.
        BundleError: a bundle is damaged.
    """
    if is_bundle(path):
        return _of_bundle(path)
    if is_survey(path):
        return _of_survey(path)
    if not path.exists():
        raise RecordError("the path does not exist", where=path, hint=f"give {KINDS}")
    if path.is_dir():
        raise RecordError("the folder is neither a bundle nor a survey", where=path, hint=f"give {KINDS}")
    return _of_file(path)


def _of_bundle(path: Path) -> Side:
    evidence, notes = _held(path)
    return Side(str(path), "bundle", (evidence,), notes)


def _held(path: Path) -> tuple[Evidence, tuple[str, ...]]:
    """What a bundle holds: its verified records and the sizes of its files."""
    bundle = Bundle.open(path)
    records = records_of(bundle)
    manifest = bundle.manifest
    network, precision = manifest.recipe["name"], manifest.precision
    found = next(iter(evidence_of(records.verified)), Evidence(network, precision))
    notes = (
        *(f"{one.file} was left out: {one.reason}" for one in records.unverified),
        *(
            f"{kind} records are not compared: {why}"
            for kind, why in _ALONE.items()
            if any(record.kind == kind for record in records.verified)
        ),
    )
    return _with_files(found, bundle), notes


def _with_files(evidence: Evidence, bundle: Bundle, subject: Subject | None = None) -> Evidence:
    ran = subject or next(iter(reversed(evidence.subjects)), None)
    sizes = size_estimates(bundle, ran.digest if ran else "")
    return dataclasses.replace(evidence, sizes=sizes, table=recipe_of(bundle.manifest).gates)


def _of_survey(path: Path) -> Side:
    rows, bundles = read_rows(path), path / "bundles"
    found: dict[tuple[str, str], Evidence] = {}
    notes: list[str] = []
    alone: list[Mapping[str, Any]] = []
    for row in rows:
        name = f"{row['model']}-{row['precision']}"
        if row["status"] != "done":
            notes.append(f"{name}, batch {row['batch']} was left out: {row['reason'] or 'it was stopped'}")
        elif not is_bundle(bundles / name):
            alone.append(row)
        elif (row["model"], row["precision"]) not in found:
            found[row["model"], row["precision"]], more = _held(bundles / name)
            notes += more
    evidence = (*found.values(), *row_evidence(alone))
    if not evidence:
        hint = f"resume it with the options it was started with: cnnx survey --out {path}"
        raise RecordError("the survey holds no figures", where=path, hint=hint)
    return Side(str(path), "survey", evidence, tuple(notes))


def _of_file(path: Path) -> Side:
    data = plain_in(path)
    if is_report(data):
        evidence, notes = report_evidence(rows_in(data, where=path), where=path)
        return Side(str(path), "report", evidence, notes)
    found = record_in(path, data)
    record = found.record
    if record.kind not in _COMPARED:
        why = _ALONE.get(record.kind, "")
        raise RecordError(
            f"a {record.kind} record holds nothing to compare{f': {why}' if why else ''}",
            where=path,
            hint=f"give a record of one of the kinds {', '.join(_COMPARED)}",
        )
    evidence = evidence_of([record])
    if not evidence:
        what = "the record is about the original, which has no engine to compare"
        raise RecordError(what, where=path, hint="give a record of the bundle's graph or engine")
    if found.bundle is not None and not found.doubt:
        return Side(str(path), "run", (_with_files(evidence[0], found.bundle, record.subject),))
    return Side(str(path), "run", evidence, (found.doubt,) if found.doubt else ())


def names(sides: Sequence[Evidence]) -> str:
    """The networks and precisions of a side, for messages."""
    return ", ".join(f"{one.network} {one.precision}" for one in sides)
