"""Writes a comparison as a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnx.pipeline.plain import plain
from cnnx.report.document import Section, made_report
from cnnx.report.files import write_document
from cnnx.report.table import Remark, Table
from cnnx.report.tables.compare import compare_blocks

if TYPE_CHECKING:
    from cnnx.pipeline.compare.compare import CompareResult


def write_comparison(result: CompareResult, path: str | Path) -> None:
    """Write a comparison in the format of the path's suffix; JUnit has a case for each gate.

    Raises:
        UsageError: the suffix is not one of the formats.
        MissingExtra: HTML is requested, and the packages that draw it are not installed.
        WriteFailed: the file cannot be written.
    """
    data = plain(result)
    blocks = [*compare_blocks(data, [pair.gates for pair in result.pairs])]
    section = Section(
        "Comparison",
        tuple(block for block in blocks if isinstance(block, Remark)),
        tables=tuple(block for block in blocks if isinstance(block, Table)),
    )
    title = f"cnnx compare: {result.new} against {result.base}"
    write_document(made_report("comparison", title, sections=[section], rows=_rows(data)), Path(path))


def _rows(data: Any) -> list[dict[str, Any]]:
    """One row for each change, then one for each gate; what a row does not have is null."""
    keys = ("what", "unit", "batch", "base", "new", "change", "ratio", "outcome", "how")
    judged = ("threshold", "at_most", "verdict", "decides_at", "reason")
    rows = []
    for pair in data["pairs"]:
        names = {"network": pair["network"], "base_subject": pair["base"], "new_subject": pair["new"]}
        blank = dict.fromkeys((*keys, "low", "high", *judged))
        for change in pair["changes"]:
            ends = change["interval"] or {"low": None, "high": None}
            rows.append({**names, "kind": "change", **blank, **{key: change[key] for key in keys}, **ends})
        for gate in pair["gates"]:
            ends = gate["interval"] or {"low": None, "high": None}
            found = {"what": gate["name"], "unit": gate["unit"], "new": gate["value"], **ends}
            rows.append({**names, "kind": "gate", **blank, **found, **{key: gate[key] for key in judged}})
    return rows
