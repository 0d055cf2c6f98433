"""Writes reports: Markdown and HTML to read, JUnit for CI, JSON and CSV for further processing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnx.errors import MissingExtra, UsageError
from cnnx.record import Record, Unverified
from cnnx.report.ci import metrics, workflow_commands
from cnnx.report.frame import frame_from_records
from cnnx.report.junit import junit
from cnnx.report.markdown import markdown
from cnnx.report.records import sections_of
from cnnx.report.table import Remark, Said
from cnnx.store.files import atomic_file, check_place

Writer = Callable[[Sequence[Record], Sequence[Unverified]], str]


def write_records(records: Sequence[Record], path: Path, *, unverified: Sequence[Unverified] = ()) -> None:
    """Write a report in the format of the path's suffix.

    Args:
        records: verified records.
        path: path of the report.
        unverified: records to list with the reason, without figures.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: jinja2 or matplotlib is not installed, for HTML.
        WriteFailed: the file cannot be written.
    """
    text = _writer_for(path)(records, unverified)
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def check(path: Path) -> None:
    """Check, before the work starts, that a report can be written.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: jinja2 or matplotlib is not installed, for HTML.
        WriteFailed: the file cannot be written.
    """
    if _writer_for(path) is html_from_records:
        for name in ("jinja2", "matplotlib"):
            if importlib.util.find_spec(name) is None:
                raise MissingExtra(name, "report", purpose="an HTML report")
    check_place(path)


def _writer_for(path: Path) -> Writer:
    """The writer for the path's suffix.

    Raises:
        UsageError: the suffix is not a known format.
    """
    if path.suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(
            f"unknown report format {path.suffix or path.name!r}",
            where=str(path),
            hint=f"use one of the suffixes {known}",
        )
    return FORMATS[path.suffix]


def json_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """The frame as JSON, row by row."""
    return frame_from_records(records, unverified).write_json() + "\n"


def csv_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """The frame as CSV."""
    return frame_from_records(records, unverified).write_csv()


def markdown_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """Every table with its remarks, as Markdown."""
    blocks = _blocks(records, unverified)
    return markdown(blocks or [Remark("No validations or measurements.")])


def junit_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """A suite for each verdict and self-test, a case for each gate or check; undecided ones are skipped.

    Unverified records are skipped cases in a separate suite.
    """
    return junit(_blocks(records, unverified))


def annotations_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """A GitHub workflow command for each gate that did not pass."""
    return workflow_commands(_blocks(records, unverified))


def metrics_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """Values and intervals in OpenMetrics text, for GitLab."""
    return metrics(_blocks(records, unverified))


def _blocks(records: Sequence[Record], unverified: Sequence[Unverified]) -> list[Said]:
    return [block for section in sections_of(records, unverified) for block in section.blocks]


def html_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """One HTML page with its plots inside and no external links."""
    from cnnx.report.page import page_from_records

    return page_from_records(records, unverified)


def write_blocks(blocks: Sequence[Said], path: Path, *, data: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write tables that are not about records, such as a comparison, in the format of the path's suffix.

    Args:
        blocks: for Markdown, HTML and JUnit.
        path: path of the report.
        data: for JSON: plain data.
        rows: for CSV: one mapping a row, all with the same keys.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: jinja2 is not installed, for HTML.
        WriteFailed: the file cannot be written.
    """
    import polars as pl

    from cnnx.report.page import page_from_blocks

    _writer_for(path)
    formats: dict[str, Callable[[], str]] = {
        ".html": lambda: page_from_blocks(blocks),
        ".md": lambda: markdown(blocks),
        ".xml": lambda: junit(blocks),
        ".annotations": lambda: workflow_commands(blocks),
        ".metrics": lambda: metrics(blocks),
        ".json": lambda: json.dumps(data, indent=1) + "\n",
        ".csv": lambda: pl.DataFrame(rows, infer_schema_length=None).write_csv(),
    }
    text = formats[path.suffix]()
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def gate_rows(gates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each gate, which is plain data, for CSV."""
    keys = ("name", "unit", "value", "threshold", "at_most", "verdict", "decides_at", "reason")
    blank = {"low": None, "high": None}
    return [{**{key: gate[key] for key in keys}, **(gate["interval"] or blank)} for gate in gates]


FORMATS: dict[str, Writer] = {
    ".html": html_from_records,
    ".md": markdown_from_records,
    ".xml": junit_from_records,
    ".json": json_from_records,
    ".csv": csv_from_records,
    ".annotations": annotations_from_records,
    ".metrics": metrics_from_records,
}
