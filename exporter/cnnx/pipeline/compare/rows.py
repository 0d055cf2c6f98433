"""Reads figures without raw samples: rows of a survey, and of a report in JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnx.agreement import rate_estimate
from cnnx.errors import RecordError
from cnnx.gates import AGREEMENT, BINARY, Estimate
from cnnx.pipeline.compare.evidence import Evidence, Judged, Timed, Used, gathered
from cnnx.pipeline.judge.costs import memory_of
from cnnx.pipeline.report.rows import row_type
from cnnx.record import Subject
from cnnx.report.document import report_from_plain
from cnnx.schema import from_plain
from cnnx.stats import Interval

_MS = 1e-6
_NO_SAMPLES = "a report and a survey hold no samples of it"
_HINT = "write the report again with this cnnx: --report FILE.json"


def row_evidence(rows: Iterable[Mapping[str, Any]]) -> tuple[Evidence, ...]:
    """Evidence of finished survey rows whose bundles are not in the survey's folder."""
    return gathered(_surveyed(row) for row in rows)


def _surveyed(row: Mapping[str, Any]) -> Timed:
    subject = Subject(**row["subject"])
    conditions = {"device": subject.device, "CUDA graph": row.get("cuda_graph"), "series": row.get("of")}
    median = _median(row, row.get("p50_interval"), valid=row["valid"], samples=0)
    return Timed(subject, row["batch"], conditions, median, _NO_SAMPLES, memory_of(row["memory"]))


def rows_in(data: Any, *, where: Path) -> Sequence[Any]:
    """The rows of a report in JSON; until cnnx 0.1 the file was their list.

    Raises:
        RecordError: the report is damaged, of a later schema, or about something else than records.
    """
    if isinstance(data, list):
        return data
    report = report_from_plain(data, where=where)
    if report.about != "records":
        what = f"the report is about {_ABOUT[report.about]}, which has no side to compare"
        raise RecordError(what, where=where, hint="give a report that --report wrote for a bundle")
    return report.rows


_ABOUT = {"comparison": "a comparison", "gates": "gates judged again", "survey": "a survey"}


def report_evidence(data: Sequence[Any], *, where: Path) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """Evidence of the rows of a report in JSON, and what was left out.

    Raises:
        RecordError: a row has an unknown key or a value of another type, or no row has figures.
    """
    found: list[Judged | Timed | Used] = []
    notes: list[str] = []
    for index, plain in enumerate(data):
        row = _row(plain, where=where, at=f"[{index}]")
        if row["unverified"] is not None:
            notes.append(f"{row['file']} was left out: {row['unverified']}")
        elif row["artefact"] != "original" and row["kind"] in _READERS:
            found.append(_READERS[row["kind"]](row, _subject(row, where=where, at=f"[{index}]")))
    if not found:
        what = "the report has no verdict, latency or energy"
        raise RecordError(what, where=where, hint="write it after cnnx export, validate or bench")
    return gathered(found), tuple(notes)


def _row(plain: Any, *, where: Path, at: str) -> dict[str, Any]:
    row = from_plain(row_type(), plain, where=where, error=RecordError, at=at, hint=_HINT)
    found: dict[str, Any] = dataclasses.asdict(row)
    return found


def _subject(row: Mapping[str, Any], *, where: Path, at: str) -> Subject:
    keys = ("network", "artefact", "digest", "precision", "runtime", "device", "engine")
    plain = {key: "" if row[key] is None else row[key] for key in keys}
    return from_plain(Subject, plain, where=where, error=RecordError, at=at, hint=_HINT)


def _judged(row: Mapping[str, Any], subject: Subject) -> Judged:
    images = row["images"] or 0
    found: dict[str, Estimate | str] = {}
    for key in AGREEMENT:
        value, low, high = (row[f"{key}{end}"] for end in ("", "_low", "_high"))
        known = None not in (value, low, high) and images > 0
        interval = Interval(low, high) if known else None
        found[key] = (
            Estimate(value, interval, images, wilson=key in BINARY) if known else "the report lacks it"
        )
    accuracy = row["accuracy_engine"]
    known = accuracy is not None and 0 <= accuracy <= 1 and images > 0
    found["accuracy"] = rate_estimate(accuracy, images) if known else "the images have no labels"
    unjudged = "the report says that it was not judged" if row["verdict"] == "not judged" else ""
    return Judged(subject, images, "", found, proves_nothing=unjudged)


def _timed(row: Mapping[str, Any], subject: Subject) -> Timed:
    conditions = {"device": subject.device, "CUDA graph": row["cuda_graph"], "series": row["of"]}
    ends = {"low": row["p50_ns_low"], "high": row["p50_ns_high"]}
    interval = None if None in ends.values() else ends
    median = _median(row, interval, valid=row["valid"] is not False, samples=row["samples"] or 0)
    return Timed(subject, row["batch"] or 1, conditions, median, _NO_SAMPLES, memory_of(row))


def _median(row: Mapping[str, Any], interval: Any, *, valid: bool, samples: int) -> Estimate | str:
    if not valid:
        return "the measurement is invalid"
    if row.get("p50_ns") is None or interval is None or interval["low"] <= 0:
        return "there is no median with an interval"
    at = Interval(interval["low"] * _MS, interval["high"] * _MS)
    return Estimate(row["p50_ns"] * _MS, at, samples, "samples")


def _used(row: Mapping[str, Any], subject: Subject) -> Used:
    conditions = {
        "device": subject.device,
        "CUDA graph": row["cuda_graph"],
        "runs per second": row["rate"],
        "sensor": row["sensor"],
    }
    value, low, high = (row[f"gross_mj{end}"] for end in ("", "_low", "_high"))
    known = None not in (value, low, high)
    gross: Estimate | str = Estimate(value, Interval(low, high)) if known else f"no total: {row['covers']}"
    return Used(subject, row["batch"] or 1, conditions, gross)


_READERS: Mapping[str, Callable[[Mapping[str, Any], Subject], Judged | Timed | Used]] = {
    "validation": _judged,
    "judgement": _judged,
    "benchmark": _timed,
    "energy": _used,
}
