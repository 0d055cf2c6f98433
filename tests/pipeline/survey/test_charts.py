"""The charts of a survey: ten figures, tested findings, devices apart, and what is no survey."""

import json

import numpy as np
import pytest
from scipy import stats as scipy_stats

import cnnx
from cnnx.errors import InputRefused, RecordError
from cnnx.pipeline.survey.canziani import POINTS
from cnnx.pipeline.survey.figures import figures_of
from cnnx.pipeline.survey.findings import _rises, findings_of
from cnnx.pipeline.survey.report import report_of_rows
from tests.conftest import invoke

SUBJECT = {
    "network": "a", "artefact": "graph", "digest": "ab" * 32, "precision": "fp16",
    "runtime": "rtx 1.7", "device": "Orin", "engine": "", "graph_digest": "", "device_kind": "gpu",
}  # fmt: skip


PHOTOS = {"low": 0.5, "high": 0.9, "images": 100, "image_set": "photos"}


def row(index, *, precision="fp16", batch=1, device="Orin", ms=None, **changes):
    """A finished row of a network: the larger, the slower, the more accurate."""
    gops = 2.0**index
    time = ms or (1 + gops) * batch
    found = {
        "model": f"net{index}", "precision": precision, "batch": batch, "status": "done", "reason": "",
        "hint": "", "verdict": "passed", "follows_from": {}, "valid": True, "findings": [],
        "cuda_graph": None,
        "subject": {**SUBJECT, "network": f"net{index}", "device": device}, "of": "end to end",
        "images_per_second": 1000 * batch / time, "p50_ns": round(time * 1e6), "p90_ns": None, "p99_ns": None,
        "p50_interval": {"low": time * 0.99e6, "high": time * 1.01e6}, "mean_ns": time * 1e6,
        "memory": {"added_bytes": (100 + 3 * 2 * 10 * 2**index) << 20},
        "parameters": (10 * 2**index) << 20, "multiply_adds": round(gops * 5e8),
        "accuracy": {**PHOTOS, "top1": 0.8 - 0.2 / (1 + gops)},
        "published_top1": None, "published_on": "ImageNet", "undecided": "",
        "power_mw": 10000.0 + index, "gross_mj": 10 * time, "net_mj": time,
    }  # fmt: skip
    return {**found, **changes}


ROWS = [row(index, batch=batch) for index in range(6) for batch in (1, 8)]


def test_all_ten_figures_are_drawn_and_the_papers_points_are_theirs():
    figures = {chart.kind: chart for chart in figures_of(ROWS)}
    assert list(figures) == [
        "top1", "accuracy-ops", "time-batch", "power-batch", "memory-batch", "memory-parameters",
        "ops-time", "ops-power", "accuracy-rate", "density",
    ]  # fmt: skip
    for kind in ("top1", "accuracy-ops", "density"):
        origins = [mark["origin"] for mark in figures[kind].rows]
        assert origins.count("Canziani et al. 2016") == len(POINTS) == 14
        assert origins.count("measured, photos") == 6
    [vgg] = [mark for mark in figures["density"].rows if mark["network"] == "VGG-19"]
    [enet] = [mark for mark in figures["density"].rows if mark["network"] == "ENet"]
    # The paper: ENet's parameters are worth 24 times those of VGG-19.
    assert enet["density"] / vgg["density"] == pytest.approx(24, abs=0.5)
    assert {(mark["network"], mark["batch"]) for mark in figures["ops-time"].rows} == {
        (f"net{index}", batch) for index in range(6) for batch in (1, 8)
    }
    assert figures["time-batch"].rows[0]["ms"] == pytest.approx(2.0)
    assert figures["memory-parameters"].rows[0] == {
        "network": "net0", "precision": "fp16", "series": "net0 fp16", "parameters_mib": 20, "mib": 160,
    }  # fmt: skip


def test_a_front_holds_what_no_other_beats_among_accuracies_of_one_image_set():
    rows = [row(index) for index in range(4)]
    rows.append(row(1, model="slow-and-worse", ms=50))
    rows.append(row(0, model="stand-in", ms=0.1, accuracy=None, published_top1=60.0))
    marks = {
        mark["network"]: mark for mark in next(c for c in figures_of(rows) if c.kind == "accuracy-rate").rows
    }
    assert not marks["slow-and-worse"]["front"] and all(marks[f"net{index}"]["front"] for index in range(4))
    assert marks["stand-in"]["origin"] == "published, ImageNet" and marks["stand-in"]["front"]


def outcomes(rows):
    return {each.claim.partition(" ")[0]: each for each in findings_of(rows)}


def test_the_papers_findings_are_tested_both_ways():
    found = outcomes(ROWS)
    assert {name: each.outcome for name, each in found.items()} == dict.fromkeys(
        ("Power", "Accuracy", "Energy", "The", "Memory"), "holds"
    )
    assert "100 MiB + 3.00 x parameters" in found["Memory"].why
    random = np.random.default_rng(1)
    noise = []
    for index in range(12):
        ms = float(random.uniform(1, 100))
        changes = {"power_mw": float(random.uniform(1e3, 2e4)), "gross_mj": ms}
        changes["memory"] = {"added_bytes": int(random.integers(1, 1000)) << 20}
        changes["accuracy"] = {**PHOTOS, "top1": 0.9 - 0.003 * ms}
        batch = (1, 8)[index % 2]
        noise.append(row(index, batch=batch, ms=ms * batch, **changes))
    assert {each.outcome for each in outcomes(noise).values()} == {"does not hold"}
    few = outcomes([row(0, power_mw=None)])
    assert {each.outcome for each in few.values()} == {"not tested"}
    assert few["Power"].why == "no power was measured"


def test_the_rank_correlation_is_scipys():
    random = np.random.default_rng(0)
    x = random.integers(0, 6, 15).astype(float)
    y = x + random.normal(size=15)
    holds, why = _rises(x, y)
    expected = scipy_stats.spearmanr(x, y, alternative="greater")
    assert holds and f"{expected.statistic:.2f}" in why and expected.pvalue < 0.05


def test_devices_and_precisions_stay_apart():
    report = report_of_rows([*ROWS, row(0, device="RTX 3090"), row(0, precision="int8")])
    titles = [section.title for section in report.sections]
    assert titles == [
        "Charts on rtx 1.7, Orin", "Findings on rtx 1.7, Orin", "Survey on rtx 1.7, Orin",
        "Charts on rtx 1.7, RTX 3090", "Findings on rtx 1.7, RTX 3090", "Survey on rtx 1.7, RTX 3090",
    ]  # fmt: skip
    assert [table.title[-4:] for table in report.sections[1].tables] == ["FP16", "INT8"]
    assert len(report.rows) == 14


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory):
    out = tmp_path_factory.mktemp("surveyed") / "out"
    cnnx.survey(["lenet5"], out=out, precisions=("fp32", "int8"), batches=(1,), seconds=0.05, images=100)
    return out


def test_a_survey_knows_accuracy_size_and_why_nothing_is_decided(surveyed, tmp_path):
    pytest.importorskip("altair", reason="charts need the extra report")
    [fp32, int8] = json.loads((surveyed / "survey.json").read_text())
    assert fp32["parameters"] == int8["parameters"] == 61_706 and fp32["multiply_adds"] == 416_520
    assert fp32["accuracy"]["images"] == 100 and fp32["accuracy"]["low"] < fp32["accuracy"]["top1"] <= 1
    assert fp32["verdict"] == "inconclusive" and "needs" in fp32["undecided"]
    assert "61,706" in (surveyed / "survey.md").read_text()
    page = (surveyed / "survey.html").read_text()
    assert "Accuracy and operations" in page and "findings, tested here in INT8" in page
    done = invoke("report", "--survey", surveyed, "--out", tmp_path / "s.json", "--out", tmp_path / "s.csv")
    assert done.exit_code == 0 and json.loads((tmp_path / "s.json").read_text())["about"] == "survey"
    assert (tmp_path / "s.csv").read_text().count("\n") == 3
    again = invoke("report", tmp_path / "s.json", "--out", tmp_path / "s.html")
    assert again.exit_code == 0 and "Accuracy and operations" in (tmp_path / "s.html").read_text()


def test_what_is_no_survey_is_refused(surveyed, tmp_path):
    with pytest.raises(RecordError, match="not a survey's folder"):
        cnnx.write_survey_report(tmp_path, tmp_path / "s.md")
    (tmp_path / "rows").mkdir()
    with pytest.raises(RecordError, match="holds no figures"):
        cnnx.write_survey_report(tmp_path, tmp_path / "s.md")
    data = json.loads(next((surveyed / "rows").glob("*fp32*")).read_text())
    file = tmp_path / "rows" / "lenet5-fp32-b1.json"
    for damage in ({"accuracy": {"top1": 2}}, {"parameters": -1}, {"multiply_adds": "many"}, {"dreams": 1}):
        file.write_text(json.dumps({**data, **damage}))
        with pytest.raises(InputRefused):
            cnnx.write_survey_report(tmp_path, tmp_path / "s.md")
    file.write_text(json.dumps(data)[:-20])
    with pytest.raises(InputRefused):
        cnnx.write_survey_report(tmp_path, tmp_path / "s.md")
    assert invoke("report", surveyed, "--survey", surveyed).exit_code == 2
    assert invoke("report", "--survey", surveyed, "--no-images").exit_code == 2
    assert not (tmp_path / "s.md").exists()


def test_rows_of_older_surveys_are_read(surveyed, tmp_path):
    """They lack what a network's rows have since gained."""
    (tmp_path / "rows").mkdir()
    for file in (surveyed / "rows").iterdir():
        data = json.loads(file.read_text())
        for key in ("parameters", "multiply_adds", "accuracy", "published_top1", "published_on", "undecided"):
            data.pop(key)
        (tmp_path / "rows" / file.name).write_text(json.dumps(data))
    report = cnnx.write_survey_report(tmp_path, tmp_path / "s.md").report
    kinds = [chart.kind for chart in report.sections[0].charts]
    assert kinds == ["time-batch", "memory-batch"]
