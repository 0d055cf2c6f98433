"""`cnnx report`: what bundles, records, surveys and reports hold on one page, and what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import cnnx
from cnnx.bundle import Bundle
from cnnx.errors import RecordError
from cnnx.pipeline.report.report import report_of
from cnnx.record import Record
from tests.conftest import invoke


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A trained network in INT8 that flips some of its validation images."""
    out = tmp_path_factory.mktemp("flipped") / "net"
    cnnx.export("small-mobilenet", precision="int8", out=out, validation_images=400)
    return out


def section(report, title):
    [found] = [each for each in report.sections if each.title == title]
    return found


def test_cards_answer_first_and_flips_come_with_thumbnails(flipped, tmp_path):
    written = cnnx.write_report(flipped, [tmp_path / "r.json", tmp_path / "r.md"])
    [int8, original] = written.report.cards
    validation = next(each for each in Bundle.open(flipped).records() if each.kind == "validation").result
    figures = {each.label: each for each in int8.figures}
    assert int8.verdict == validation["verdict"] and original.verdict == "original"
    assert figures["top-1 accuracy"].value == f"{validation['accuracy']['engine']:.2%}"
    assert {"latency p50", "memory", "size of the graph", "MACs in INT8", "clear agreement"} <= set(figures)
    [flips] = section(written.report, "Flipped images").flips
    assert flips.total == len(validation["flips"]) == len(flips.images) > 0
    margins = [each.margin for each in flips.images]
    assert margins == sorted(margins, reverse=True) and max(margins) < 0.5
    names = set(Bundle.open(flipped).labels)
    for each in flips.images:
        assert len(each.original) == len(each.now) == 5 and each.original[0] != each.now[0]
        assert {each.label, *each.original, *each.now} <= names
        assert each.thumbnail.startswith("data:image/png;base64,")
    titles = [each.title for each in written.report.sections]
    assert titles == [
        "Agreement",
        "Flipped images",
        "Latency",
        "Memory",
        "Layers",
        "Provenance",
        "Environment",
    ]
    assert "Provenance" not in (tmp_path / "r.md").read_text()


def test_thumbnails_can_be_left_out_also_later(flipped, tmp_path):
    assert invoke("report", flipped, "--out", tmp_path / "r.json").exit_code == 0
    assert "data:image" in (tmp_path / "r.json").read_text()
    for run in (flipped, tmp_path / "r.json"):
        assert invoke("report", run, "--no-images", "--out", tmp_path / "bare.json").exit_code == 0
        assert "data:image" not in (tmp_path / "bare.json").read_text()


def test_thumbnails_of_other_images_are_found_by_their_folder(tiny_bundle, images, tmp_path):
    """A judgement on the user's images, with flips planted in its record."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    name = sorted(file.name for file in images.iterdir())[0]
    record = next(each for each in Bundle.open(bundle).records() if each.kind == "validation")
    flips = [{"image": name, "original": [0, 1, 2, 3, 4], "engine": [1, 0, 2, 3, 4], "label": None}]
    result = {**record.result, "image_set": images.name, "images": 24, "flips": flips}
    Bundle.open(bundle).add_record(Record("judgement", record.subject, record.environment, result))
    found = section(report_of([bundle]), "Flipped images")
    assert found.flips[0].images[0].thumbnail == "" and "--images names a folder" in found.remarks[0].text
    found = section(report_of([bundle], images=images), "Flipped images")
    assert found.flips[0].images[0].thumbnail.startswith("data:image/png") and found.remarks == ()
    found = section(report_of([bundle], images=tmp_path / images.name), "Flipped images")
    assert "no folder" in found.remarks[0].text


def test_records_surveys_and_reports_are_sources_too(tiny_bundle, tmp_path):
    whole = report_of([tiny_bundle])
    [record] = [file for file in (tiny_bundle / "runs").iterdir() if "-validation-" in file.name]
    alone = report_of([record])
    assert len(alone.rows) == 1 and alone.rows[0]["kind"] == "validation"
    moved = shutil.copy(record, tmp_path / "record.json")
    without = report_of([moved])
    assert without.rows == alone.rows and "Layers" not in [each.title for each in without.sections]
    shutil.copytree(tiny_bundle, tmp_path / "survey" / "bundles" / "net-int8")
    (tmp_path / "survey" / "rows").mkdir()
    assert report_of([tmp_path / "survey"]).rows == whole.rows
    cnnx.write_report(tiny_bundle, tmp_path / "r.json")
    joined = report_of([tmp_path / "r.json", moved])
    assert joined.cards == (*whole.cards, *without.cards) and joined.rows == (*whole.rows, *without.rows)


def test_a_record_about_other_contents_is_listed_without_figures(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    [file] = [each for each in (bundle / "runs").iterdir() if "-validation-" in each.name]
    data = json.loads(file.read_text())
    for subject in (data["subject"], data["result"]["subject"]):
        subject["digest"] = "ab" * 32
    file.write_text(json.dumps(data))
    report = report_of([file])
    [table] = section(report, "Unverified records").tables
    assert "a different graph" in table.rows[0][-1].text and report.cards == ()


WHOLE = (
    '{"kind": "report", "schema": 2, "about": "records", "title": "t", "date": "2026-01-02T03:04:05+00:00", '
    '"cnnx": "0.2", "cards": (), "sections": (), "rows": []}'
).replace("()", "[ ]")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "schema 1, but this cnnx reads 2"),
        ('{"kind": "report", "schema": 3}', "schema 3, but this cnnx reads 2"),
        ('{"kind": "report", "schema": 2, "about": "records"', "JSON"),
        ('{"kind": "report", "schema": 2, "about": "records"}', "the key 'title' is missing"),
        ('{"kind": "report", "schema": 2, "about": "dreams"}', "not 'dreams'"),
        ('{"kind": "validation"}', "missing"),
        (WHOLE.replace("[]", '[{"p50_ns": NaN}]'), "rows[0].p50_ns"),
        ('{"a": 1}', "neither a record nor a report"),
        ("{", "JSON"),
        ("\\x00", "JSON"),
    ],
)
def test_what_is_no_report_is_refused(text, what, tmp_path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecordError) as caught:
        report_of([tmp_path / "r.json"])
    assert what in str(caught.value) and caught.value.hint and caught.value.exit_code == 3


def test_nothing_to_report_is_refused(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    shutil.rmtree(bundle / "runs")
    for run, what in (
        (bundle, "nothing was recorded"),
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "neither a bundle nor a survey"),
    ):
        done = invoke("report", run, "--out", tmp_path / "r.md")
        assert done.exit_code == 3 and what in done.stderr and not (tmp_path / "r.md").exists()
    assert invoke("report", tiny_bundle, "--out", tmp_path / "r.doc").exit_code == 2
    assert invoke("report").exit_code == 2


def test_reports_about_different_things_are_not_joined(tiny_bundle, tmp_path):
    cnnx.write_report(tiny_bundle, tmp_path / "r.json")
    done = invoke("compare", tiny_bundle, tiny_bundle, "--report", tmp_path / "c.json")
    assert done.exit_code in (0, 6)
    assert report_of([tmp_path / "c.json"]).about == "comparison"
    with pytest.raises(RecordError, match="cannot be joined: records, comparison"):
        report_of([tmp_path / "r.json", tmp_path / "c.json"])


def test_thousands_of_records_of_many_devices_stay_apart_on_a_page_below_5_mb(tiny_bundle, tmp_path):
    pytest.importorskip("altair", reason="HTML reports need the extra report")
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    records = Bundle.open(bundle).records()
    shutil.rmtree(bundle / "runs")
    record = next(each for each in records if each.kind == "benchmark" and each.subject.artefact == "graph")
    (bundle / "runs").mkdir()
    record.result["latency"]["samples_ns"] = record.result["latency"]["samples_ns"][:200]
    for number in range(1000):
        subject = dataclasses.replace(record.subject, device=f"CPU: core {number}")
        result = {**record.result, "subject": dataclasses.asdict(subject)}
        kept = dataclasses.replace(record, subject=subject, result=result)
        Path(bundle / "runs" / f"{number:04}-benchmark.json").write_text(json.dumps(kept.as_dict()))
    written = cnnx.write_report(bundle, [tmp_path / "r.html", tmp_path / "r.csv"])
    assert len(written.report.cards) == len(written.report.rows) == 1000
    assert (tmp_path / "r.html").stat().st_size < 5_000_000
    assert (tmp_path / "r.csv").read_text().count("\n") == 1001
    assert "the first 40 of 1000 runs" in (tmp_path / "r.html").read_text()
