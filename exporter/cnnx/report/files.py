"""Reports as files: Markdown and HTML for people, JUnit for CI, JSON and CSV for what comes after."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from cnnx.errors import MissingExtra, UsageError
from cnnx.record import Record, Unverified
from cnnx.report.frame import frame_from_records
from cnnx.report.junit import junit
from cnnx.report.markdown import markdown
from cnnx.report.records import sections_of
from cnnx.report.table import Remark, Said
from cnnx.store.files import atomic_file, check_place

Writer = Callable[[Sequence[Record], Sequence[Unverified]], str]


def write_records(records: Sequence[Record], path: Path, *, unverified: Sequence[Unverified] = ()) -> None:
    """Write a report; its format follows from the path's suffix.

    Args:
        records: that are verified.
        path: of the report.
        unverified: records that are listed with the reason and without their figures.

    Raises:
        UsageError: a suffix that means no format.
        MissingExtra: HTML is asked for and what draws it is absent.
        WriteFailed: the file cannot be written.
    """
    text = _writer_for(path)(records, unverified)
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def check(path: Path) -> None:
    """Refuse what could not be written, before the work whose report it will be.

    Raises:
        UsageError: a suffix that means no format.
        MissingExtra: HTML is asked for and what draws it is absent.
        WriteFailed: no file can be written there.
    """
    if _writer_for(path) is html_from_records:
        for name in ("jinja2", "matplotlib"):
            if importlib.util.find_spec(name) is None:
                raise MissingExtra(name, "report", purpose="an HTML report")
    check_place(path)


def _writer_for(path: Path) -> Writer:
    """What makes a report of this suffix.

    Raises:
        UsageError: a suffix that means no format.
    """
    if path.suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(
            f"no report is called {path.suffix or path.name!r}", hint=f"end it with one of: {known}"
        )
    return FORMATS[path.suffix]


def json_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """The table, row by row."""
    return frame_from_records(records, unverified).write_json() + "\n"


def csv_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """The table, for spreadsheets."""
    return frame_from_records(records, unverified).write_csv()


def markdown_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """Every table; remarks below each."""
    blocks = _blocks(records, unverified)
    return markdown(blocks or [Remark("Nothing was judged or measured.")])


def junit_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """A suite for each verdict and self-test, a case for each gate or check; open ones count as skipped.

    Unverified records are skipped cases of a suite of their own.
    """
    return junit(_blocks(records, unverified))


def _blocks(records: Sequence[Record], unverified: Sequence[Unverified]) -> list[Said]:
    return [block for section in sections_of(records, unverified) for block in section.blocks]


def html_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """One page with pictures and no link out of it."""
    from cnnx.report.page import page_from_records

    return page_from_records(records, unverified)


FORMATS: dict[str, Writer] = {
    ".html": html_from_records,
    ".md": markdown_from_records,
    ".xml": junit_from_records,
    ".json": json_from_records,
    ".csv": csv_from_records,
}
