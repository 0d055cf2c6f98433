import dataclasses
import io
import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from cnnx.agreement import judge, validation_from_dict
from cnnx.errors import UsageError, WriteFailed
from cnnx.gates import DEFAULTS
from cnnx.pipeline.report.rows import SCHEMA, frame_of, rows_of
from cnnx.pipeline.report.sections import sections_of
from cnnx.record import Record, Subject, read_record
from cnnx.report.document import made_report, report_from_plain
from cnnx.report.files import FORMATS, check, write_document
from cnnx.report.table import Column, Remark, table_of
from cnnx.report.tables import verdicts
from cnnx.report.tables.verdicts import verdict_table
from cnnx.report.terminal import draw

SUBJECT = Subject("<b>net|1</b>", "graph", "ab" * 32, "int8", "ort 1.2.3", "a CPU")


def report(records):
    return made_report(
        "records", "a report", sections=sections_of(records), rows=frame_of(rows_of(records)).to_dicts()
    )


def text_of(suffix, records):
    return FORMATS[suffix](report(records))


def verdict(images, *, wrong=0, **options):
    logits = np.random.default_rng(0).normal(size=(images, 20)).astype(np.float32)
    engine = logits.copy()
    engine[:wrong] = -engine[:wrong]
    judged = judge(
        logits,
        engine,
        subject=SUBJECT,
        limits=DEFAULTS["int8"],
        labels=None,
        ids=[str(i) for i in range(images)],
        image_set="made up",
        **options,
    )
    return Record("validation", SUBJECT, {}, judged.as_dict(), date="2026-01-02T03:04:05.000000+00:00")


LAYERS = {
    "runs": 7,
    "shares": {"compute": 0.75, "cast": 0.25},
    "layers": [
        {"name": f"{kind}<{place}>", "op": kind.title(), "kind": kind, "median_ns": ns}
        for place, (kind, ns) in enumerate([("cast", 250_000.0), *[("compute", 62_500.0)] * 12])
    ],
}


def benchmark():
    figures = {"p50_ns": 2_000_000, "p90_ns": 3_000_000, "p99_ns": None, "mean_ns": 2.1e6}
    figures |= {"coefficient_of_variation": 0.1, "images_per_second": 476.2, "of": "end to end"}
    latency = {"samples_ns": [1_900_000, 2_000_000, 3_000_000], "batch": 1}
    memory = {"before_bytes": 1, "peak_bytes": None, "after_bytes": 3, "added_bytes": None}
    figures["p50_interval"] = {"low": 1_950_000.0, "high": 2_050_000.0}
    predicted = {"source": "graph", "weights_bytes": 3 << 20, "scratch_bytes": 1 << 20, "io_bytes": 1 << 19}
    result = {"figures": figures, "latency": latency, "memory": memory, "remark": "says nothing"}
    result["subject"] = dataclasses.asdict(SUBJECT)
    result |= {"predicted": predicted, "layers": LAYERS}
    return Record("benchmark", SUBJECT, {}, result, date="2026-01-02T03:04:06.000000+00:00")


RECORDS = (
    verdict(600),
    verdict(600, wrong=300),
    verdict(100),
    verdict(600, cannot_judge=("stand-ins",)),
    benchmark(),
)


def test_the_frame_has_a_row_a_record_and_null_for_what_was_not_measured():
    frame = frame_of(rows_of(RECORDS))
    assert dict(frame.schema) == dict(frame_of([]).schema) == SCHEMA
    assert frame["verdict"].to_list() == ["passed", "failed", "inconclusive", "not judged", None]
    assert frame["top1_agreement"].to_list()[:2] == [1.0, 0.5] and frame["top1_agreement"][4] is None
    assert frame["p99_ns"].null_count() == frame["peak_bytes"].null_count() == 5
    assert (frame["p50_ns_low"][4], frame["p50_ns_high"][4]) == (1_950_000, 2_050_000)
    assert frame["p50_ns"][4] == 2_000_000 and frame["samples"][4] == 3


def test_junit_counts_failures_and_gives_reasons(tmp_path):
    write_document(report(RECORDS), tmp_path / "r.xml")
    suites = ElementTree.parse(tmp_path / "r.xml").getroot().findall("testsuite")
    assert [(s.get("tests"), s.get("failures"), s.get("skipped")) for s in suites] == [
        ("5", "0", "0"),
        ("5", "4", "0"),
        ("5", "0", "2"),
        ("5", "0", "5"),
        ("1", "0", "0"),
    ]
    assert suites[0].get("name") == str(SUBJECT)
    open_gate = suites[2].find("testcase/skipped").get("message")
    assert "images would decide" in open_gate and "stand-ins" in suites[3].find("testcase/skipped").get(
        "message"
    )


def test_markdown_is_tables_whose_cells_stay_apart():
    text = text_of(".md", RECORDS)
    assert text.count("# &lt;b>net|1&lt;/b> int8: ") == 4 and text.count("| top-1 agreement | ") == 4
    assert "| top-1 agreement | 0.5000 | 0.4601 .. 0.5399 | - | shown |" in text
    [row] = [line for line in text.splitlines() if line.startswith("| 2026")]
    assert "net\\|1" in row
    assert row.endswith("| 1 | 2.000 | 1.950 .. 2.050 | 3.000 | - | 2.100 | 10.0 | 476.2 | 3 |")
    assert "| 1 | 3.00 | 1.00 | 0.50 | 4.50 | unknown | unknown |" in text
    assert "| cast<0> | Cast | cast | 0.250 | 25.0 |" in text and "| compute<9> |" in text
    assert "compute<12>" in text and "\nmedians of 7 separate profiling runs" in text


def test_a_new_column_and_a_new_gate_are_in_every_format_by_themselves(monkeypatch):
    """The column by one line in its builder, the gate by what was judged."""
    pytest.importorskip("altair", reason="HTML reports need the extra report")
    new = Column("new column", lambda gate: f"new of {gate.name}")
    monkeypatch.setattr(verdicts, "GATES", (*verdicts.GATES, new))
    record = verdict(600)
    gate = {**record.result["gates"][0], "name": "new gate"}
    record = dataclasses.replace(record, result={**record.result, "gates": [*record.result["gates"], gate]})
    screen = io.StringIO()
    draw(Console(file=screen, width=200), [verdict_table(validation_from_dict(record.result))])
    for shown in (screen.getvalue(), *(text_of(suffix, [record]) for suffix in (".md", ".html"))):
        assert "new column" in shown and "new of top-1 agreement" in shown and "new of new gate" in shown
    suite = ElementTree.fromstring(text_of(".xml", [record])).find("testsuite")
    assert suite.get("tests") == "6"
    assert [case.get("name") for case in suite.findall("testcase")][-1] == "new gate"


def test_agreement_that_could_not_be_judged_is_a_skipped_case():
    record = verdict(600)
    accuracy = {**record.result["gates"][0], "name": "accuracy / original's"}
    result = {**record.result, "gates": [accuracy], "verdict": "not judged", "reasons": ["no original here"]}
    suites = ElementTree.fromstring(text_of(".xml", [dataclasses.replace(record, result=result)]))
    [suite] = suites.findall("testsuite")
    assert (suite.get("tests"), suite.get("skipped")) == ("2", "1")
    assert "no original here" in suite.find("testcase[@name='agreement']/skipped").get("message")


def test_what_a_terminal_has_no_room_for_goes_column_by_column_and_markup_is_text():
    columns = (
        Column("name", lambda row: row, fixed=True),
        Column("first to go", lambda _: "x" * 20, drop=1),
        Column("next to go", lambda _: "y" * 20, drop=2),
        Column("nothing known", lambda _: "-", known=True),
    )
    table = table_of("[red]title", columns, [["[bold]one"], ["two"]], lined=True)

    def shown(width):
        screen = io.StringIO()
        draw(Console(file=screen, width=width), [table, Remark("[b]", "note", "open", hint="[i]")])
        return screen.getvalue()

    assert "first to go" in shown(80) and "nothing known" not in shown(80)
    assert "too narrow): first to go." in shown(50) and "next to go  " in shown(50)
    narrow = ("too narrow): first to go, next to go.", "[red]title", "[bold]one", "note: [b]", "hint:  [i]")
    assert "yyy" not in shown(20) and all(words in shown(20) for words in narrow)


def test_markdown_of_nothing_says_so():
    assert text_of(".md", []) == "No validations or measurements.\n"


def test_html_is_one_page_with_its_images_and_escapes_names(tmp_path):
    pytest.importorskip("altair", reason="HTML reports need the extra report")
    write_document(report(RECORDS), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "1.950 .. 2.050" in text and "cast&lt;0&gt;" in text
    assert "&lt;b&gt;net|1" in text and "<b>net" not in text
    assert text.count("data-chart=") == 7 and "<link" not in text.partition("<script")[0]


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
    check(tmp_path / "new" / "r.md")
    assert not (tmp_path / "new").exists()
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "r.doc").touch()
    for place in (tmp_path / "folder.md", tmp_path / "r.doc" / "r.md"):
        with pytest.raises(WriteFailed):
            check(place)
    with pytest.raises(UsageError, match=r"unknown report format '.doc'"):
        check(tmp_path / "r.doc")


def test_csv_is_the_rows_and_json_is_the_whole_report(tmp_path):
    found = report(RECORDS)
    write_document(found, tmp_path / "r.csv")
    assert pl.read_csv(tmp_path / "r.csv")["network"].to_list() == [SUBJECT.network] * len(RECORDS)
    write_document(found, tmp_path / "r.json")
    again = report_from_plain(json.loads((tmp_path / "r.json").read_text()), where=tmp_path / "r.json")
    for suffix in FORMATS:
        if suffix != ".html":
            assert FORMATS[suffix](again) == FORMATS[suffix](found), suffix


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError) as caught:
        write_document(report(RECORDS), tmp_path / "r.pdf")
    assert all(suffix in caught.value.hint for suffix in FORMATS) and list(tmp_path.iterdir()) == []


def test_html_without_its_extra_names_it():
    code = """
import sys
sys.modules["jinja2"] = None
from pathlib import Path
from cnnx.errors import MissingExtra
from cnnx.report.document import made_report
from cnnx.report.files import write_document
try:
    write_document(made_report("records", "", sections=[], rows=[]), Path("x.html"))
except MissingExtra as error:
    print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ".[report]" in done.stdout, done.stderr


def test_a_record_survives_being_written(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(RECORDS[1].as_dict()))
    assert read_record(tmp_path / "r.json").as_dict() == json.loads(
        json.dumps(dataclasses.asdict(RECORDS[1]))
    )
