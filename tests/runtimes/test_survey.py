"""A survey of a small network on ONNX Runtime: cells fail alone, and a second run does nothing again."""

from __future__ import annotations

import dataclasses
import itertools
import json

import onnx
import pytest
from tests.cli.conftest import cnnx_command, tiny_graph  # noqa: F401
from tests.measure.rehearsal import failing, no_sensors, rehearsal

import cnnx
from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.pipeline import survey

PLAN = cnnx.SurveyPlan(target="ort", seconds=0.01, percentile=50, images=16)


@pytest.fixture
def tiny(tmp_path):
    model = tiny_graph()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "tiny.onnx")
    return str(tmp_path / "tiny.onnx")


def run(models, out, *, power=None, listener=None, **options):
    steps = []

    def listen(event):
        steps.append(event.step)
        if listener:
            listener(event)

    plan = dataclasses.replace(PLAN, power=power)
    found = cnnx.survey(models, out=out, batches=(1, 2), plan=plan, listener=listen, **options)
    return found, steps


def cells(found):
    return [(row["model"], row["precision"], row["batch"], row["status"]) for row in found.rows]


def test_every_cell_is_a_row_and_a_stopped_survey_goes_on(tiny, tmp_path):
    out = tmp_path / "out"
    found, _ = run([tiny, str(tmp_path / "absent.onnx")], out)
    assert cells(found) == [
        (name, precision, batch, "done" if name == "tiny" else "failed")
        for name in ("tiny", "absent")
        for precision in ("fp16", "int8")
        for batch in (1, 2)
    ]
    first, last = found.rows[0], found.rows[-1]
    assert first["p50_ns"] > 0 and first["memory"]["added_bytes"] > 0 and first["verdict"]
    assert last["reason"] and found.exit_code == 0
    page = (out / "survey.md").read_text()
    assert page.count("| tiny |") == 4 and page.count("failed: ") == 4
    assert json.loads((out / "survey.json").read_text()) == list(found.rows)

    again, steps = run([tiny, str(tmp_path / "absent.onnx")], out)
    assert again.rows == found.rows and steps == []

    # Killed in a cell: its row said "running". It is not tried again by itself, as it would be killed again.
    row = out / "rows" / "tiny-int8-b2.json"
    row.write_text(json.dumps({**json.loads(row.read_text()), "status": "running"}))
    killed, steps = run([tiny], out)
    assert steps == [] and [r["status"] for r in killed.rows] == ["done"] * 3 + ["failed"]
    assert "died in this cell" in killed.rows[-1]["reason"]
    mended, steps = run([tiny], out, again=True)
    assert mended.rows[-1]["status"] == "done" and steps.count("latency and memory") >= 1


def test_finished_bundles_are_judged_and_measured_and_batches_they_lack_are_rows(
    tiny,
    tmp_path,
    cnnx_command,  # noqa: F811
):
    images = {"calibration_images": 16, "validation_images": 16}
    cnnx.export(tiny, precision="int8", out=tmp_path / "bundle", target="ort", **images)
    code, out, _ = cnnx_command(
        "survey", "--models", tmp_path / "bundle", "--out", tmp_path / "out", "--batches", "1,4",
        "--seconds", "0.01", "--percentile", "50", "--target", "ort",
    )  # fmt: skip
    assert code == 0 and "failed: the graph takes batches of 1 to 1, not 4" in out
    assert list((tmp_path / "bundle" / "runs").glob("*-benchmark-*"))
    with pytest.raises(UsageError, match="no precision"):
        cnnx.survey([tiny], out=tmp_path / "o", precisions=["int4"])


def test_a_fault_that_is_no_refusal_ends_its_cells_alone(tiny, tmp_path, monkeypatch):
    def bench(places, **options):
        raise RuntimeError("a fault")

    monkeypatch.setattr(survey, "bench", bench)
    found, _ = run([tiny], tmp_path / "out")
    assert [(row["status"], row["reason"], row["mend"]) for row in found.rows] == [
        ("failed", "RuntimeError: a fault", "report this")
    ] * 4


def energies(found):
    assert all(row["status"] == "done" and row["p50_ns"] > 0 for row in found.rows)
    return [(row["precision"], row["batch"], row["energy"], row["sensor"]) for row in found.rows]


def test_each_cell_has_a_pass_of_its_own_and_energy_can_be_asked_for_later(tiny, tmp_path):
    out = tmp_path / "out"
    run([tiny], out)
    found, steps = run([tiny], out, power=rehearsal(tick_ms=200))
    assert energies(found) == [(p, b, "measured", "ina") for p in ("fp16", "int8") for b in (1, 2)]
    assert steps[0].startswith("Energy, where a sensor sees the device: 4 passes of 74 to 174 s each")
    for row in found.rows:
        assert row["gross_mj"] > row["net_mj"] > 0 and row["no_energy"] == "" and row["energy_doubts"] == []
        [*_, last] = sorted((out / "bundles" / f"tiny-{row['precision']}" / "runs").glob("*-energy-*"))
        assert json.loads(last.read_text())["result"]["batch"] == 2
    page = (out / "survey.md").read_text()
    assert "| gross mJ | net mJ |" in page and f"| {found.rows[0]['gross_mj']:.2f} |" in page

    again, steps = run([tiny], out, power=rehearsal(tick_ms=200), again=True)
    assert again.rows == found.rows and steps == []


@pytest.mark.parametrize("error", [EnvironmentLacks("the power sampler ended"), RuntimeError("a fault")])
def test_a_cell_whose_energy_fails_is_a_row_with_its_reason_and_keeps_its_latency(tiny, tmp_path, error):
    out, passes = tmp_path / "out", itertools.count(1)
    power, listener = failing(
        lambda step: step == "energy" and next(passes) == 2, rehearsal(tick_ms=200), error
    )
    found, _ = run([tiny], out, power=power, listener=listener, precisions=["fp16"])
    assert energies(found) == [("fp16", 1, "measured", "ina"), ("fp16", 2, "failed", None)]
    failed = found.rows[1]
    assert failed["gross_mj"] is failed["net_mj"] is None and str(error) in failed["no_energy"]
    assert f"energy failed: {failed['no_energy']}" in (out / "survey.md").read_text()

    _, steps = run([tiny], out, power=rehearsal(tick_ms=200), precisions=["fp16"])
    assert steps == []
    mended, steps = run([tiny], out, power=rehearsal(tick_ms=200), precisions=["fp16"], again=True)
    assert mended.rows[0] == found.rows[0] and mended.rows[1]["energy"] == "measured"
    assert "1 pass of" in steps[0]


def test_a_survey_stopped_in_an_energy_pass_keeps_the_latency_of_all_that_took_turns(tiny, tmp_path):
    def stop(event):
        if event.step == "energy":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([tiny], tmp_path / "out", power=rehearsal(tick_ms=200), listener=stop)
    rows = [json.loads(file.read_text()) for file in sorted((tmp_path / "out" / "rows").glob("*-b1.json"))]
    assert [(row["status"], row["energy"], row["p50_ns"] > 0) for row in rows] == [
        ("done", "failed", True)
    ] * 2
    assert "stopped" in rows[0]["no_energy"]


def test_where_no_sensor_sees_the_device_a_survey_says_so_once(tiny, tmp_path, monkeypatch, cnnx_command):  # noqa: F811
    no_sensors(monkeypatch)
    command = [
        "survey", "--models", tiny, "--out", tmp_path / "out", "--precisions", "fp16", "--batches", "1,2",
        "--seconds", "0.01", "--percentile", "50", "--target", "ort", "--images", "16", "--power",
    ]  # fmt: skip
    code, out, _ = cnnx_command(*command)
    assert code == 0 and "tiny fp16, batch 1; tiny fp16, batch 2: energy unsupported" in " ".join(out.split())
    assert out.count("ina: no INA3221 here") == 1
    _, out, _ = cnnx_command(*command, "--json")
    for row in json.loads(out)["result"]["rows"]:
        assert row["energy"] == "unsupported" and row["p50_ns"] > 0
        assert "no power sensor here sees" in row["no_energy"] and "rapl: root alone" in row["no_energy"]
