"""Writes tables of verdicts as JUnit XML: one suite per table, one case per row with a verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from cnnx.report.table import Cell, Said, Table, Tone

_OUTCOMES: dict[Tone, str] = {"bad": "failure", "open": "skipped"}


def junit(blocks: Iterable[Said]) -> str:
    """The text of the file. Blocks without a verdict are left out."""
    suites = ElementTree.Element("testsuites", name="cnnx")
    for block in blocks:
        if isinstance(block, Table) and block.suite:
            _suite(suites, block)
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
    )


def _suite(suites: ElementTree.Element, table: Table) -> None:
    assert table.suite is not None
    cases = list(_cases(table))
    tones = [outcome.tone for _, outcome, _ in cases]
    attributes = {
        "name": _xml(table.suite.name),
        **({"timestamp": table.suite.date} if table.suite.date else {}),
        "tests": str(len(cases)),
        "failures": str(tones.count("bad")),
        "errors": "0",
        "skipped": str(tones.count("open")),
    }
    suite = ElementTree.SubElement(suites, "testsuite", attributes)
    for name, outcome, message in cases:
        head = {"name": _xml(name), "classname": _xml(table.suite.classname)}
        case = ElementTree.SubElement(suite, "testcase", head)
        if outcome.tone in _OUTCOMES:
            ElementTree.SubElement(case, _OUTCOMES[outcome.tone], message=_xml(message))


def _cases(table: Table) -> Iterator[tuple[str, Cell, str]]:
    """The name, the verdict and the message of each row."""
    reasons = [str(remark) for remark in table.remarks if remark.tone]
    for row in table.rows:
        for outcome in (cell for cell in row if cell.tone):
            cells = zip(table.columns[1:], row[1:], strict=True)
            values = ", ".join(f"{column.heading} {cell.text}" for column, cell in cells if not cell.tone)
            yield row[0].text, outcome, "; ".join([f"{outcome.text}: {values}", *reasons])


def _xml(text: str) -> str:
    """Text without control characters, which XML 1.0 cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
