"""The page of devices claims no test and no probe that is not there."""

from __future__ import annotations

import ast

import pytest

from tools import ROOT
from tools.check import gpu
from tools.docs.device_findings import FINDINGS, Finding, section
from tools.markdown import wrapped


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda each: each.what[:40])
def test_what_covers_a_finding_is_there(finding: Finding) -> None:
    assert bool(finding.tests) == (finding.covered is not None)
    assert set(finding.probes) <= gpu.LIMITS_S.keys()
    for test in finding.tests:
        file, name = test.split("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_are_on_the_page() -> None:
    text = section()
    assert len(FINDINGS) == 22 and text.count("\n| ") == 23 and "| open | - | - |" in text
    assert wrapped(section()).strip() in (ROOT / "docs" / "devices.md").read_text()
