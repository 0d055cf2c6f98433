"""Writes gates that were judged again as a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnx.pipeline.judge.again import Again
from cnnx.pipeline.plain import plain
from cnnx.pipeline.report.charts import gate_chart
from cnnx.report.document import Section, made_report
from cnnx.report.files import write_document
from cnnx.report.table import Remark
from cnnx.report.tables.verdicts import again_table

_KEYS = ("name", "unit", "value", "threshold", "at_most", "verdict", "decides_at", "reason")
_BLANK = {"low": None, "high": None}


def write_judged_again(again: Again, path: Path) -> None:
    """Write the gates in the format of the path's suffix.

    Raises:
        UsageError: the suffix is not one of the formats.
        MissingExtra: HTML is requested, and the packages that draw it are not installed.
        WriteFailed: the file cannot be written.
    """
    gates = plain(again)["gates"]
    section = Section(
        "Gates",
        tuple(Remark(note, "note", "open") for note in again.notes),
        tuple(gate_chart(str(again.subject), gates)),
        (again_table(again.subject, again.gates, again.records),),
    )
    title = f"cnnx validate --from: {again.subject.network} {again.subject.precision}"
    write_document(made_report("gates", title, sections=[section], rows=map(_row, gates)), path)


def _row(gate: Any) -> dict[str, Any]:
    return {**{key: gate[key] for key in _KEYS}, **(gate["interval"] or _BLANK)}
