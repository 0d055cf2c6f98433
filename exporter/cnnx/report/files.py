"""Reports as files: Markdown and HTML for people, JUnit for CI, JSON and CSV for what comes after."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cnnx.errors import MissingExtra, UsageError
from cnnx.record import Record, Unverified
from cnnx.report.frame import frame_from_records
from cnnx.report.tables import Table, tables_from_records, unverified_tables, with_unit
from cnnx.selftest import self_test_from_dict
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
            f"no report is called {path.suffix or path.name!r}", mend=f"end it with one of: {known}"
        )
    return FORMATS[path.suffix]


def json_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """The table, row by row."""
    return frame_from_records(records, unverified).write_json() + "\n"


def csv_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """The table, for spreadsheets."""
    return frame_from_records(records, unverified).write_csv()


def markdown_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """Every table; remarks below each. A diagnosis has none."""
    tables = (*tables_from_records(records), *unverified_tables(unverified))
    if not tables:
        return "Nothing was judged or measured.\n"
    return "\n".join(line for table in tables for line in _lines(table))


def _lines(table: Table) -> Iterator[str]:
    yield from (f"# {table.title}", "", _line(*table.columns))
    yield "|" + "|".join("---:" if column in table.right else "---" for column in table.columns) + "|"
    yield from (_line(*row) for row in table.rows)
    for remark in table.remarks:
        yield from ("", remark)
    yield ""


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def junit_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """A suite for each verdict and self-test, a case for each gate or check; open ones count as skipped.

    Unverified records are skipped cases of a suite of their own.
    """
    suites = ElementTree.Element("testsuites", name="cnnx")
    for record in records:
        classname = f"cnnx.{record.subject.network}.{record.subject.precision}"
        if record.kind == "validation":
            _suite(suites, str(record.subject), classname, _gate_cases(record), date=record.date)
        if record.kind == "judgement":
            name = f"{record.subject}, judged anew on {record.result['images']} images"
            _suite(suites, name, classname, _gate_cases(record), date=record.date)
        if record.kind == "selftest":
            name = f"self-test of {record.subject}"
            _suite(suites, name, classname, _self_test_cases(record), date=record.date)
    if unverified:
        cases = [(one.file, "skipped", one.reason) for one in unverified]
        _suite(suites, "unverified records", "cnnx.unverified", cases)
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
    )


def _xml(text: str) -> str:
    """Text without control characters, which XML 1.0 cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _suite(
    suites: ElementTree.Element,
    name: str,
    classname: str,
    cases: Sequence[tuple[str, str, str]],
    *,
    date: str = "",
) -> None:
    """A suite of cases, each a name, its outcome, and what is said where it did not pass."""
    outcomes = [outcome for _, outcome, _ in cases]
    counts = {
        "tests": str(len(cases)),
        "failures": str(outcomes.count("failed")),
        "errors": "0",
        "skipped": str(len(cases) - outcomes.count("failed") - outcomes.count("passed")),
    }
    when = {"timestamp": date[:19]} if date else {}
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _xml(name), **when, **counts})
    for what, outcome, said in cases:
        case = ElementTree.SubElement(suite, "testcase", name=_xml(what), classname=_xml(classname))
        if outcome != "passed":
            kind = "failure" if outcome == "failed" else "skipped"
            ElementTree.SubElement(case, kind, message=_xml(said))


def _gate_cases(record: Record) -> list[tuple[str, str, str]]:
    reasons = record.result["reasons"]
    return [(gate["name"], gate["verdict"], _said(gate, reasons)) for gate in record.result["gates"]]


def _self_test_cases(record: Record) -> list[tuple[str, str, str]]:
    tested = self_test_from_dict(record.result)
    cases = [
        (
            check.name,
            check.verdict.value,
            f"{check.verdict.value}: {with_unit(check.value, check.unit)}, "
            f"limit {with_unit(check.limit, check.unit)}",
        )
        for check in tested.checks
    ]
    if tested.nonfinite:
        cases.append(
            ("finite logits", "failed", f"{tested.nonfinite} images gave logits that are not finite")
        )
    return cases


def _said(gate: dict[str, Any], reasons: Sequence[str]) -> str:
    interval = f"{gate['interval']['low']:.4f} .. {gate['interval']['high']:.4f}"
    text = f"{gate['verdict']}: {gate['value']:.4f}, 95 % interval {interval}, threshold {gate['threshold']}"
    if gate["decides_at"]:
        text += f"; {gate['decides_at']} images would decide"
    return "; ".join([text, *reasons])


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
