"""What CI reads: JUnit by a parser of its own, GitHub's workflow commands, GitLab's metrics."""

import re

import pytest

from cnnx.gates import Estimate, decided
from cnnx.record import Subject
from cnnx.report.ci import metrics, workflow_commands
from cnnx.report.junit import junit
from cnnx.report.tables.verdicts import again_table
from cnnx.stats import Interval
from tests.report.test_reports import RECORDS, benchmark, text_of, verdict

SUBJECT = Subject("net", "graph", "ab" * 32, "int8", "ort 1.2.3", "a CPU")
GATES = (
    decided("top1_agreement", 0.95, Estimate(0.99, Interval(0.97, 0.995), 100)),
    decided("latency_p50_ms", 2, Estimate(2.5, Interval(2.4, 2.6), 100, "samples")),
    decided("latency_ratio", 1, Estimate(1.01, Interval(0.99, 1.02), 100, "rounds")),
    decided("energy_mj", 3, "no energy, 100 % sure:\nthe sensor is <gone>"),
)
TABLE = again_table(SUBJECT, GATES, ["a record"])


def parsed(text, tmp_path):
    junitparser = pytest.importorskip("junitparser")
    (tmp_path / "r.xml").write_text(text)
    return junitparser.JUnitXml.fromfile(str(tmp_path / "r.xml"))


def properties(case):
    """Properties of a case, which junitparser leaves to its element."""
    return {each.get("name"): each.get("value") for each in case._elem.iter("property")}


def test_junit_is_read_back_with_value_interval_time_type_and_text(tmp_path):
    found = parsed(junit([TABLE]), tmp_path)
    assert (found.tests, found.failures, found.errors, found.skipped) == (4, 1, 0, 2)
    [suite] = found
    assert (suite.tests, suite.failures, suite.skipped) == (4, 1, 2)
    passed, failed, undecided, unjudged = suite
    assert (passed.name, passed.classname, passed.is_passed) == ("top-1 agreement", "cnnx.net.int8", True)
    assert properties(failed) == {
        "value": "2.5", "low": "2.4", "high": "2.6", "threshold": "2", "unit": "ms",
    }  # fmt: skip
    assert failed.time == pytest.approx(0.0025) and suite.time == pytest.approx(0.0025)
    [failure] = failed.result
    assert failure.type == "failed gate" and failure.message == failure.text
    assert "value 2.5 ms, 95 % interval 2.4 .. 2.6, limit at most 2 ms" in failure.text
    # 0.01 above the limit needs the distance to the lower bound, 0.02, halved: four times the 100 rounds.
    assert "401 rounds would decide" in undecided.result[0].text
    assert unjudged.is_skipped and "the sensor is <gone>" in unjudged.result[0].text


def test_a_report_of_records_has_a_case_for_each_gate_and_latency(tmp_path):
    suites = [*parsed(text_of(".xml", RECORDS), tmp_path)]
    assert [len(suite) for suite in suites] == [5, 5, 5, 5, 1]
    [latency] = suites[-1]
    assert latency.name == "latency p50, batch 1" and latency.time == pytest.approx(0.002)
    assert properties(latency)["low"] == "1.95"


def test_a_hostile_name_stays_text(tmp_path):
    [suite] = parsed(junit([verdict_table_of(verdict(600))]), tmp_path)
    assert "<b>net|1</b>" in suite.name


def verdict_table_of(record):
    from cnnx.agreement import validation_from_dict
    from cnnx.report.tables.verdicts import verdict_table

    return verdict_table(validation_from_dict(record.result))


def test_github_gets_a_command_for_each_gate_that_did_not_pass():
    lines = workflow_commands([TABLE]).splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::warning", "::warning"]
    assert lines[0].startswith("::error title=cnnx.net.int8%3A latency p50::failed: value 2.5 ms")
    assert "100 %25 sure:%0Athe sensor" in lines[2]


def test_gitlab_gets_openmetrics_without_hashes_or_dates():
    text = metrics([TABLE])
    assert 'cnnx_latency_p50_ms{subject="cnnx.net.int8",figure="high"} 2.6\n' in text
    assert text.endswith("# EOF\n") and "abab" not in text and "energy" not in text
    sample = re.compile(r'[a-z_:][a-z0-9_:]*\{subject="(?:[^"\\\n]|\\.)*",figure="[a-z]+"\} [-+.e\d]+')
    assert all(sample.fullmatch(line) for line in text_of(".metrics", [benchmark()]).splitlines()[:-1])
