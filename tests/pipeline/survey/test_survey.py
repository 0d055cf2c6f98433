"""A survey of a small network on ONNX Runtime: cells fail alone, and a second run repeats nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import onnx
import pytest

import cnnx
from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.pipeline.bench.measurement import Unmeasured
from cnnx.pipeline.survey import survey
from tests.doubles.rehearsal import failing, no_sensors, rehearsal
from tests.inputs.tiny import tiny_graph
from tools import ROOT

PLAN = cnnx.SurveyPlan(target="ort", seconds=0.01, percentile=50, images=16)


@pytest.fixture
def tiny(tmp_path):
    model = tiny_graph()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "tiny.onnx")
    return str(tmp_path / "tiny.onnx")


def run(models, out, *, power=None, listener=None, plan=PLAN, **options):
    steps = []

    def listen(event):
        steps.append(event.step)
        if listener:
            listener(event)

    plan = dataclasses.replace(plan, power=power)
    options = {"batches": (1, 2), **options}
    found = cnnx.survey(models, out=out, plan=plan, listener=listen, **options)
    return found, steps


def cells(found):
    return [(row["model"], row["precision"], row["batch"], row["status"]) for row in found.rows]


def test_every_cell_is_a_row_and_a_stopped_survey_resumes(tiny, tmp_path):
    out, broken = tmp_path / "out", tmp_path / "broken.onnx"
    broken.write_text("no graph")
    found, _ = run([tiny, str(broken)], out)
    assert cells(found) == [
        (name, precision, batch, "done" if name == "tiny" else "failed")
        for name in ("tiny", "broken")
        for precision in ("fp16", "int8")
        for batch in (1, 2)
    ]
    first, last = found.rows[0], found.rows[-1]
    assert first["p50_ns"] > 0 and first["memory"]["added_bytes"] > 0 and first["verdict"]
    assert last["reason"] and found.exit_code == 0
    page = (out / "survey.md").read_text()
    assert page.count("| tiny |") == 4 and page.count("| broken | ") == 4
    assert page.count("| - | failed | - |") == 4 and page.count(last["reason"]) == 1
    assert page.count("broken fp16, batch 1; broken fp16, batch 2; broken int8, batch 1; broken int8") == 1
    assert page.count(f"Hint: {last['hint']}.") == 1
    assert page.count("judged under assumed preprocessing: tiny fp16, batch 1; tiny fp16, batch 2;") == 1
    assert json.loads((out / "survey.json").read_text()) == list(found.rows)

    again, steps = run([tiny, str(broken)], out)
    assert again.rows == found.rows and steps == []


def test_invalid_options_are_refused_and_change_no_finished_row(tiny, tmp_path, cnnx_command):
    out = tmp_path / "out"
    usual = {
        "--models": tiny, "--out": out, "--precisions": "fp16", "--batches": "1", "--target": "ort",
        "--seconds": "0.01", "--percentile": "50", "--images": "16", "--weights": "pretrained",
    }  # fmt: skip

    def told(*flags, **changes):
        options = {**usual, **{f"--{key}": value for key, value in changes.items()}}
        code, _, said = cnnx_command("survey", *itertools.chain.from_iterable(options.items()), *flags)
        return code, said

    assert told()[0] == 0
    before = {file: file.read_text() for file in out.rglob("*.json")}
    unknown = f"{tiny},lenet6,resnet21,{tmp_path / 'absent.onnx'}"
    for word, flags, changes in (
        ("seconds", (), {"seconds": "-1"}),
        ("--percentile", (), {"percentile": "10"}),
        ("--images", (), {"images": "0"}),
        ("--cuda-graph needs engines", ("--cuda-graph",), {}),
        ("own weights", (), {"weights": "standin"}),
        ("needs at least one model", (), {"models": ""}),
        ("nope.pth", (), {"models": "lenet5", "weights": "nope.pth"}),
        ("'lenet6', 'resnet21', ", (), {"models": unknown}),
    ):
        code, said = told(*flags, **changes)
        absent = word.startswith(("nope", "'lenet6'"))  # an input, as for export
        assert code == (3 if absent else 2) and word in " ".join(said.split()), (word, said)
        assert {file: file.read_text() for file in out.rglob("*.json")} == before
    (tmp_path / "file").write_text("")
    assert told(out=tmp_path / "file")[0] == 4


def test_a_damaged_bundle_is_a_row_a_cell_and_the_others_go_on(tiny_bundle, tmp_path):
    damaged = shutil.copytree(tiny_bundle, tmp_path / "d1")
    (damaged / "manifest.json").write_text("no manifest")
    found, _ = run([damaged, tiny_bundle], tmp_path / "out")
    assert cells(found) == [
        ("d1", "unknown", 1, "failed"),
        ("d1", "unknown", 2, "failed"),
        ("tiny", "int8", 1, "done"),
        ("tiny", "int8", 2, "failed"),
    ]
    assert found.rows[0]["reason"] and found.rows[0]["hint"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("measuring", [False, True])
def test_an_interrupted_cell_is_not_finished(tiny, tmp_path, measuring, error):
    def stop(event):
        if any(tmp_path.glob("out/rows/*.json")) or (not measuring and event.step == "validation"):
            raise error

    one = {"batches": [1], "precisions": ["fp16"]}
    notes = []

    def listen(event):
        notes.append(event.step) if event.note else stop(event)

    with pytest.raises(error):
        run([tiny], tmp_path / "out", listener=listen, **one)
    assert not list(tmp_path.glob("out/rows/*.json"))
    assert (tmp_path / "out" / "survey.md").is_file() and json.loads(
        (tmp_path / "out" / "survey.json").read_text()
    ) == []
    assert notes[-1].endswith(f"the same command with --out {tmp_path / 'out'} resumes.")
    found, _ = run([tiny], tmp_path / "out", **one)
    assert cells(found) == [("tiny", "fp16", 1, "done")]


def test_an_interrupted_retry_keeps_the_reason_of_the_failure(tiny, tmp_path, monkeypatch):
    one = {"batches": [1], "precisions": ["fp16"]}
    with monkeypatch.context() as patch:
        patch.setattr(survey, "bench", lambda places, **_: 1 / 0)
        failed, _ = run([tiny], tmp_path / "out", **one)

    def stop(event):
        if event.step == "latency and memory":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([tiny], tmp_path / "out", listener=stop, again=True, **one)
    found, _ = run([tiny], tmp_path / "out", **one)
    assert found.rows == failed.rows and "ZeroDivisionError" in found.rows[0]["reason"]


def killed_in(tiny, tmp_path, mark, power="None"):
    """A survey that kills itself once the row of the second batch contains this text."""
    program = f"""
import os, signal, cnnx
from pathlib import Path
from tests.doubles.rehearsal import rehearsal

def kill(event):
    row = Path("out/rows/tiny-fp16-b2.json")
    if row.exists() and {mark!r} in row.read_text():
        os.kill(os.getpid(), signal.SIGKILL)

plan = cnnx.SurveyPlan(target="ort", seconds=0.01, percentile=50, images=16, power={power})
cnnx.survey([{tiny!r}], out="out", precisions=["fp16"], batches=[1, 2, 4], plan=plan, listener=kill)
"""
    places = [str(ROOT), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == -signal.SIGKILL


THREE = {"precisions": ["fp16"], "batches": [1, 2, 4]}


def test_a_cell_in_which_the_process_was_killed_is_retried_once(tiny, tmp_path):
    killed_in(tiny, tmp_path, "running")
    found, _ = run([tiny], tmp_path / "out", **THREE)
    assert [row["status"] for row in found.rows] == ["done"] * 3
    assert not any("killed" in row for row in found.rows)


def test_only_the_cell_in_which_the_process_was_killed_twice_fails(tiny, tmp_path):
    """It is not retried a third time automatically, as it would be killed again."""
    killed_in(tiny, tmp_path, '"killed": 1')
    killed_in(tiny, tmp_path, '"killed": 2')
    found, _ = run([tiny], tmp_path / "out", **THREE)
    assert [row["status"] for row in found.rows] == ["done", "failed", "done"]
    assert "died in this cell twice" in found.rows[1]["reason"] and "--again" in found.rows[1]["hint"]
    retried, steps = run([tiny], tmp_path / "out", again=True, **THREE)
    assert {row["status"] for row in retried.rows} == {"done"} and "latency and memory" in steps


def test_an_energy_pass_in_which_the_process_was_killed_is_retried_once(tiny, tmp_path):
    power = "rehearsal(tick_ms=1000)"
    killed_in(tiny, tmp_path, "died in the energy pass", power)
    again, _ = run([tiny], tmp_path / "out", power=rehearsal(tick_ms=1000), **THREE)
    assert {energy for _, _, energy, _ in energies(again)} == {"measured"}


def test_cells_killed_side_by_side_are_retried_alone(tiny, tmp_path, monkeypatch):
    bench, together = survey.bench, []

    def note(places, **options):
        together.append(len(places))
        return bench(places, **options)

    monkeypatch.setattr(survey, "bench", note)
    run([tiny], tmp_path / "out", batches=[1])
    for file in tmp_path.glob("out/rows/*.json"):
        row = json.loads(file.read_text())
        file.write_text(json.dumps({**row, "status": "running", "killed": 1}))
    found, _ = run([tiny], tmp_path / "out", batches=[1])
    assert together == [2, 1, 1] and {row["status"] for row in found.rows} == {"done"}


def test_a_cell_keeps_its_figures_if_measuring_its_energy_fails(tiny, tmp_path, monkeypatch):
    one = {"batches": [1], "precisions": ["fp16"]}
    done, _ = run([tiny], tmp_path / "out", **one)
    monkeypatch.setattr(survey, "bench", lambda places, **_: 1 / 0)
    found, _ = run([tiny], tmp_path / "out", power=rehearsal(), **one)
    assert found.rows[0]["p50_ns"] == done.rows[0]["p50_ns"]
    assert energies(found) == [("fp16", 1, "failed", None)]
    assert "ZeroDivisionError" in found.rows[0]["no_energy"] and "please report it" in found.rows[0]["hint"]
    longer = dataclasses.replace(PLAN, seconds=0.02)
    assert [row["status"] for row in run([tiny], tmp_path / "out", plan=longer, **one)[0].rows] == ["failed"]


def test_cells_that_cannot_be_opened_together_are_measured_alone(tiny, tmp_path, monkeypatch):
    """Like two engines on a board with memory for one."""
    bench, together = survey.bench, []

    def short(places, *, batch, **options):
        together.append((batch, len(places)))
        found = bench(places, batch=batch, **options)
        first, *others = found.measurements
        error = EnvironmentLacks("out of memory")
        failed = tuple(Unmeasured(one.subject, batch, error) for one in others)
        return dataclasses.replace(found, measurements=(first,), unmeasured=failed)

    monkeypatch.setattr(survey, "bench", short)
    found, _ = run([tiny], tmp_path / "out")
    assert [row["status"] for row in found.rows] == ["done"] * 4
    assert together == [(1, 2), (1, 1), (2, 2), (2, 1)]


def test_two_models_with_the_same_name_are_refused_before_any_work(tiny, tmp_path, tiny_bundle):
    (tmp_path / "b").mkdir()
    shutil.copy(tiny, tmp_path / "b" / "tiny.onnx")
    second = str(tmp_path / "b" / "tiny.onnx")
    for models, options in (
        ([tiny, second], {}),
        ([tiny, "tiny"], {}),
        ([tiny_bundle, tiny], {"precisions": ["fp16", "int8"]}),
    ):
        with pytest.raises(UsageError) as refusal:
            run(models, tmp_path / "out", **options)
        assert str(models[0]) in refusal.value.what and str(models[1]) in refusal.value.what
    assert not (tmp_path / "out").exists()


def test_recipes_whose_names_differ_after_the_dot_are_two(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_bundle", lambda *_: 1 / 0)
    found, _ = run(["squeezenet1.0", "squeezenet1.1"], tmp_path / "out", precisions=["fp16"], batches=[1, 1])
    assert [row["model"] for row in found.rows] == ["squeezenet1.0", "squeezenet1.1"]


def test_the_page_is_written_after_each_network(tmp_path, monkeypatch):
    seen = []

    def bundle(name, *_):
        page = tmp_path / "out" / "survey.md"
        seen.append((name, page.read_text() if page.exists() else ""))
        raise UsageError("not here")

    monkeypatch.setattr(survey, "_bundle", bundle)
    run(["lenet5", "resnet20"], tmp_path / "out", precisions=["fp16"], batches=[1])
    assert [name for name, _ in seen] == ["lenet5", "resnet20"]
    assert seen[0][1] == "" and "lenet5" in seen[1][1] and "resnet20" not in seen[1][1]


def test_a_row_is_measured_again_if_options_or_graph_changed(tiny, tmp_path, monkeypatch):
    one = {"batches": [1], "precisions": ["fp16"]}
    out = tmp_path / "out"

    def told(**changes):
        found, steps = run([tiny], out, **{**one, **changes})
        assert [row["status"] for row in found.rows] == ["done"] * len(found.rows)
        assert not steps or "latency and memory" in steps
        return steps[:1]

    told()
    assert told() == []
    longer = dataclasses.replace(PLAN, seconds=0.02)
    assert told(plan=longer) == ["1 cell is measured again, as this has changed: seconds."]
    assert told(plan=longer) == []
    model = onnx.load(tiny)
    model.graph.node[0].doc_string = "another"
    onnx.save(model, tiny)
    assert told(plan=longer)[0].endswith("as this has changed: network.")
    monkeypatch.setattr("cnnx.runtimes.ort.runtime.RUNTIME.version", lambda: "99.9")
    assert told(plan=longer)[0].endswith("as this has changed: runtime.")
    assert told(plan=longer, batches=[1, 2])[0].endswith("as this has changed: batches.")


def test_a_bundle_is_surveyed_again_only_if_it_changed(tiny, tmp_path):
    def export(**options):
        images = {"calibration_images": 16, "validation_images": 16}
        cnnx.export(tiny, out=tmp_path / "bundle", target="ort", precision="fp16", **images, **options)

    def steps_of(**options):
        return run([tmp_path / "bundle"], tmp_path / "out", batches=[1], **options)[1]

    export()
    assert steps_of()
    assert steps_of(plan=dataclasses.replace(PLAN, weights="standin", images=32)) == []
    export(scales="fp32")
    assert steps_of()[0].endswith("as this has changed: network.")


def test_finished_bundles_are_judged_and_measured_and_batches_they_lack_are_rows(
    tiny,
    tmp_path,
    cnnx_command,
):
    images = {"calibration_images": 16, "validation_images": 16}
    cnnx.export(tiny, precision="int8", out=tmp_path / "bundle", target="ort", **images)
    code, out, _ = cnnx_command(
        "survey", "--models", tmp_path / "bundle", "--out", tmp_path / "out", "--batches", "1,4",
        "--seconds", "0.01", "--percentile", "50", "--target", "ort",
    )  # fmt: skip
    assert code == 0 and "failed: the graph takes batches from 1 to 1, not 4: tiny int8, batch 4" in out
    assert "hint:  export it again with --batch" in out and out.count("failed") == 2
    assert list((tmp_path / "bundle" / "runs").glob("*-benchmark-*"))
    with pytest.raises(UsageError, match="unknown precision"):
        cnnx.survey([tiny], out=tmp_path / "o", precisions=["int4"])


def test_an_unexpected_error_fails_only_its_own_cells(tiny, tmp_path, monkeypatch):
    def bench(places, **options):
        raise RuntimeError("a fault")

    monkeypatch.setattr(survey, "bench", bench)
    found, _ = run([tiny], tmp_path / "out")
    assert [(row["status"], row["reason"], row["hint"]) for row in found.rows] == [
        ("failed", "RuntimeError: a fault", "this is a bug in cnnx or a library: please report it")
    ] * 4


def energies(found):
    assert all(row["status"] == "done" and row["p50_ns"] > 0 for row in found.rows)
    return [(row["precision"], row["batch"], row["energy"], row["sensor"]) for row in found.rows]


def test_each_cell_has_its_own_pass_and_energy_can_be_requested_later(tiny, tmp_path):
    out = tmp_path / "out"
    run([tiny], out)
    found, steps = run([tiny], out, power=rehearsal(tick_ms=1000))
    assert energies(found) == [(p, b, "measured", "ina") for p in ("fp16", "int8") for b in (1, 2)]
    assert steps[0].startswith("Energy is measured after latency: 4 passes of 89 to 234 s each")
    for row in found.rows:
        assert row["gross_mj"] > row["net_mj"] > 0 and row["no_energy"] == "" and row["energy_doubts"] == []
        [*_, last] = sorted((out / "bundles" / f"tiny-{row['precision']}" / "runs").glob("*-energy-*"))
        assert json.loads(last.read_text())["result"]["batch"] == 2
    page = (out / "survey.md").read_text()
    assert "| gross mJ | net mJ |" in page and f"| {found.rows[0]['gross_mj']:.2f} |" in page

    again, steps = run([tiny], out, power=rehearsal(tick_ms=1000), again=True)
    assert again.rows == found.rows and steps == []


@pytest.mark.parametrize("error", [EnvironmentLacks("the power sampler ended"), RuntimeError("a fault")])
def test_a_cell_whose_energy_fails_is_a_row_with_its_reason_and_keeps_its_latency(tiny, tmp_path, error):
    out, passes = tmp_path / "out", itertools.count(1)
    power, listener = failing(
        lambda step: step == "energy" and next(passes) == 2, rehearsal(tick_ms=1000), error
    )
    found, _ = run([tiny], out, power=power, listener=listener, precisions=["fp16"])
    assert energies(found) == [("fp16", 1, "measured", "ina"), ("fp16", 2, "failed", None)]
    failed = found.rows[1]
    assert failed["gross_mj"] is failed["net_mj"] is None and str(error) in failed["no_energy"]
    assert f"energy failed: {failed['no_energy']}" in (out / "survey.md").read_text()

    _, steps = run([tiny], out, power=rehearsal(tick_ms=1000), precisions=["fp16"])
    assert steps == []
    retried, steps = run([tiny], out, power=rehearsal(tick_ms=1000), precisions=["fp16"], again=True)
    assert retried.rows[0] == found.rows[0] and retried.rows[1]["energy"] == "measured"
    assert "1 pass of" in steps[0]


def test_a_survey_stopped_in_an_energy_pass_keeps_all_latencies(tiny, tmp_path):
    def rows():
        files = sorted((tmp_path / "out" / "rows").glob("*-b1.json"))
        return [json.loads(file.read_text()) for file in files]

    seen = []

    def stop(event):
        if event.step == "energy":
            seen.extend(row.get("no_energy") for row in rows())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([tiny], tmp_path / "out", power=rehearsal(tick_ms=1000), listener=stop)
    assert [(row["status"], "energy" in row, row["p50_ns"] > 0) for row in rows()] == [
        ("done", False, True)
    ] * 2
    assert seen == ["the process died in the energy pass", None]  # as a killed process would have left it
    found, _ = run([tiny], tmp_path / "out", power=rehearsal(tick_ms=1000), batches=[1, 2])
    assert {energy for _, _, energy, _ in energies(found)} == {"measured"}


def test_a_missing_sensor_is_reported_once(tiny, tmp_path, monkeypatch, cnnx_command):
    no_sensors(monkeypatch)
    command = [
        "survey", "--models", tiny, "--out", tmp_path / "out", "--precisions", "fp16", "--batches", "1,2",
        "--seconds", "0.01", "--percentile", "50", "--target", "ort", "--images", "16", "--power",
    ]  # fmt: skip
    code, out, said = cnnx_command(*command)
    assert "Energy is measured after latency" not in said
    assert code == 0 and "root alone): tiny fp16, batch 1; tiny fp16, batch 2" in " ".join(out.split())
    assert out.count("energy unsupported") == out.count("hint:  see cnnx doctor") == 1
    assert out.count("ina: no INA3221 here") == 1
    _, out, _ = cnnx_command(*command, "--json")
    for row in json.loads(out)["result"]["rows"]:
        assert row["energy"] == "unsupported" and row["p50_ns"] > 0
        assert "no power sensor here measures" in row["no_energy"] and "rapl: root alone" in row["no_energy"]
    rows = {file: file.read_text() for file in tmp_path.glob("out/rows/*")}
    code, _, said = cnnx_command(*command, "--sensor", "nope")
    assert code == 4 and "the power sensor nope is not available here" in said
    assert {file: file.read_text() for file in tmp_path.glob("out/rows/*")} == rows
