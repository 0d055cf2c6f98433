"""Writes reports: Markdown and HTML to read, JUnit and others for CI, JSON and CSV for further processing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cnnx.errors import MissingExtra, UsageError
from cnnx.record import Record, Unverified
from cnnx.report.ci import metrics, workflow_commands
from cnnx.report.frame import frame_from_records
from cnnx.report.junit import junit
from cnnx.report.markdown import markdown
from cnnx.report.page import page
from cnnx.report.records import Section, sections_of
from cnnx.report.table import Remark, Said
from cnnx.store.files import atomic_file, check_place


@dataclass(frozen=True, slots=True)
class Document:
    """What a report is made of; each format takes what it needs.

    Attributes:
        sections: tables and remarks, with the records behind plots.
        as_json: the text of the JSON file.
        as_csv: the text of the CSV file.
    """

    sections: tuple[Section, ...]
    as_json: Callable[[], str]
    as_csv: Callable[[], str]

    @property
    def blocks(self) -> list[Said]:
        """The tables and remarks of all sections."""
        return [block for section in self.sections for block in section.blocks]


def document_of_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> Document:
    """A report of verified records; unverified ones are listed with the reason, without figures."""
    return Document(
        tuple(sections_of(records, unverified)),
        lambda: frame_from_records(records, unverified).write_json() + "\n",
        lambda: frame_from_records(records, unverified).write_csv(),
    )


def document_of_tables(blocks: Iterable[Said], *, data: Any, rows: Sequence[Mapping[str, Any]]) -> Document:
    """A report of tables that are not about records, such as a comparison.

    Args:
        blocks: the tables and remarks.
        data: plain data, for JSON.
        rows: for CSV: one mapping a row, all with the same keys.
    """
    return Document(
        (Section(tuple(blocks)),),
        lambda: json.dumps(data, indent=1) + "\n",
        lambda: pl.DataFrame(rows, infer_schema_length=None).write_csv(),
    )


def write_document(document: Document, path: Path) -> None:
    """Write a report in the format of the path's suffix.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: jinja2 or matplotlib is not installed, for HTML.
        WriteFailed: the file cannot be written.
    """
    text = _format_of(path)(document)
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def check(path: Path) -> None:
    """Check, before the work starts, that a report can be written.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: jinja2 or matplotlib is not installed, for HTML.
        WriteFailed: the file cannot be written.
    """
    if _format_of(path) is FORMATS[".html"]:
        for name in ("jinja2", "matplotlib"):
            if importlib.util.find_spec(name) is None:
                raise MissingExtra(name, "report", purpose="an HTML report")
    check_place(path)


def _format_of(path: Path) -> Callable[[Document], str]:
    """The format of the path's suffix.

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


def gate_rows(gates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each gate, which is plain data, for CSV."""
    keys = ("name", "unit", "value", "threshold", "at_most", "verdict", "decides_at", "reason")
    blank = {"low": None, "high": None}
    return [{**{key: gate[key] for key in keys}, **(gate["interval"] or blank)} for gate in gates]


FORMATS: dict[str, Callable[[Document], str]] = {
    ".html": lambda document: page(document.sections),
    ".md": lambda document: markdown(document.blocks or [Remark("No validations or measurements.")]),
    ".xml": lambda document: junit(document.blocks),
    ".json": lambda document: document.as_json(),
    ".csv": lambda document: document.as_csv(),
    ".annotations": lambda document: workflow_commands(document.blocks),
    ".metrics": lambda document: metrics(document.blocks),
}
"""Suffix of a report's file -> what writes its text."""
