"""Writes reports: Markdown and HTML to read, JUnit and others for CI, JSON and CSV for further processing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from cnnx.errors import UsageError
from cnnx.report.ci import metrics, workflow_commands
from cnnx.report.document import Report
from cnnx.report.junit import junit
from cnnx.report.markdown import markdown
from cnnx.report.page import missing, page
from cnnx.report.table import Remark
from cnnx.store.files import atomic_file, check_place

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def write_document(report: Report, path: Path) -> None:
    """Write a report in the format of the path's suffix.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: a package that HTML needs is not installed.
        WriteFailed: the file cannot be written.
    """
    text = _format_of(path)(report)
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def check(path: Path) -> None:
    """Check, before the work starts, that a report can be written.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: a package that HTML needs is not installed.
        WriteFailed: the file cannot be written.
    """
    if _format_of(path) is page and (lacks := missing("an HTML report")):
        raise lacks
    check_place(path)


def _format_of(path: Path) -> Callable[[Report], str]:
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


def _csv(report: Report) -> str:
    """A table of all rows. Text that a spreadsheet would run as a formula starts with an apostrophe."""
    rows = [{key: _no_formula(value) for key, value in row.items()} for row in report.rows]
    return pl.DataFrame(rows, infer_schema_length=None).write_csv()


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


FORMATS: dict[str, Callable[[Report], str]] = {
    ".html": page,
    ".md": lambda report: markdown(report.brief or [Remark("No validations or measurements.")]),
    ".xml": lambda report: junit(report.blocks),
    ".json": Report.as_json,
    ".csv": _csv,
    ".annotations": lambda report: workflow_commands(report.blocks),
    ".metrics": lambda report: metrics(report.blocks),
}
"""Suffix of a report's file -> what writes its text."""
