"""Writes verdicts as JUnit XML, as Jenkins, GitLab and GitHub's actions read it: one suite for each table.

Jenkins reads the attributes of a case and its message (github.com/jenkinsci/junit-plugin, the element names
of xunit's junit-10.xsd). GitLab reads name, classname, time, and the text of failure and skipped
(docs.gitlab.com/ci/testing/unit_test_reports), so that the text repeats what the message says. Figures are
properties of a case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from cnnx.report.cases import CaseSuite, suites_of
from cnnx.report.table import Case, Said, Tone

_OUTCOMES: dict[Tone, str] = {"bad": "failure", "open": "skipped"}


def junit(blocks: Iterable[Said]) -> str:
    """The text of the file. Blocks without a verdict are left out."""
    suites = [*suites_of(blocks)]
    root = ElementTree.Element("testsuites", {"name": "cnnx", **_counts(suites)})
    for suite in suites:
        _suite(root, suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(suites: Iterable[CaseSuite]) -> dict[str, str]:
    cases = [case for suite in suites for case in suite.cases]
    tones = [case.tone for case in cases]
    return {
        "tests": str(len(cases)),
        "failures": str(tones.count("bad")),
        "errors": "0",
        "skipped": str(tones.count("open")),
        "time": f"{sum(case.seconds for case in cases):.6f}",
    }


def _suite(root: ElementTree.Element, suite: CaseSuite) -> None:
    attributes = {
        "name": _xml(suite.name),
        **({"timestamp": suite.date} if suite.date else {}),
        **_counts([suite]),
    }
    element = ElementTree.SubElement(root, "testsuite", attributes)
    for case in suite.cases:
        _case(element, case)


def _case(suite: ElementTree.Element, case: Case) -> None:
    head = {"name": _xml(case.name), "classname": _xml(case.classname), "time": f"{case.seconds:.6f}"}
    element = ElementTree.SubElement(suite, "testcase", head)
    if case.figures:
        properties = ElementTree.SubElement(element, "properties")
        for name, value in case.figures.items():
            ElementTree.SubElement(properties, "property", name=name, value=f"{value:.9g}")
        if case.unit:
            ElementTree.SubElement(properties, "property", name="unit", value=_xml(case.unit))
    message = _xml("; ".join([case.message, *case.reasons]))
    if case.tone in _OUTCOMES:
        kind = "failed gate" if case.tone == "bad" else "undecided gate"
        outcome = ElementTree.SubElement(element, _OUTCOMES[case.tone], type=kind, message=message)
        outcome.text = _xml("\n".join([case.message, *case.reasons]))
    else:
        ElementTree.SubElement(element, "system-out").text = message


def _xml(text: str) -> str:
    """Text without control characters, which XML 1.0 cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
