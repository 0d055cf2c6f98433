"""The proof of a device, and the page that is generated from such archives."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
import tempfile

import pytest

import cnnx
from cnnx.errors import BundleError, UsageError, WriteFailed
from cnnx.pipeline.survey import proof, survey
from cnnx.pipeline.survey.plan import SurveyPlan
from tests.doubles.rehearsal import failing, no_sensors, rehearsal
from tools.docs import devices_page


def test_the_archive_holds_records_and_the_page_what_was_seen(tiny_bundle, tmp_path):
    plan = SurveyPlan(target="ort", seconds=0.01, percentile=50, power=rehearsal(tick_ms=1000))
    made = cnnx.prove(tmp_path / "p.tar.gz", bundles=[tiny_bundle], batches=(1, 2), plan=plan)
    assert [row["status"] for row in made.rows] == ["done", "failed"]
    with tarfile.open(tmp_path / "p.tar.gz") as tar:
        names = tar.getnames()
        said = json.loads(tar.extractfile("proof.json").read())
    assert {"proof.json", "survey.md"} < set(names)
    for kind in ("-benchmark-", "-energy-"):
        assert any(name.startswith("runs/bundle/") and kind in name for name in names)
    assert not any(name.endswith((".onnx", ".npz", ".engine")) for name in names)
    assert said["diagnosis"]["environment"]["machine"] and said["rows"] == list(made.rows)
    assert str(tmp_path) not in json.dumps(said)

    nothing = devices_page.page([])
    assert nothing.count(devices_page.NEVER) == nothing.count("\n| ") - 4  # but the heads of four tables
    orin = json.loads(json.dumps(devices_page.read_proof(tmp_path / "p.tar.gz")))
    orin["date"] = "2027-01-02T03:04:05+00:00"
    environment = orin["diagnosis"]["environment"]
    environment |= {"board": "NVIDIA Jetson Orin NX", "l4t": "36.4.3", "jetpack": "6.2"}
    orin["diagnosis"]["sensors"] = [{"sensor": "ina", "reason": ""}, {"sensor": "rapl", "reason": ""}]
    energy = orin["energies"][-1]
    energy |= {"drivers": ["ina3221"], "tegrastats": {"deviations": {"VDD_IN": 0.01}}}
    orin["rows"][0]["subject"]["runtime"] = "tensorrt 10.3.0"
    text = devices_page.page([orin])
    sensors = devices_page.SENSORS
    others = sensors.keys() - {"ina3221", "tegrastats"}
    assert len(others) == 7
    for seen in (
        "Jetson Orin NX",
        "TensorRT 10.3",
        "JetPack 6.2",
        *map(sensors.get, ("ina3221", "tegrastats")),
    ):
        assert f"| {seen} | 2027-01-02 |" in text
    for unseen in (
        "Jetson Orin Nano",
        "Jetson Nano",
        "TensorRT 10.16",
        "TensorRT 11.4",
        *map(sensors.get, others),
    ):
        assert f"| {unseen} | {devices_page.NEVER} |" in text
    assert "| NVIDIA Jetson Orin NX | tensorrt 10.3.0 | tiny | int8 | 1 |" in text
    assert f"| {made.rows[0]['gross_mj']:.2f} | {made.rows[0]['net_mj']:.2f} |" in text
    assert "failed: the graph takes batches from 1 to 1, not 2" in text


@pytest.fixture
def quick(monkeypatch):
    """The default plan of a proof, with less time for latency."""
    usual = proof.SurveyPlan
    monkeypatch.setattr(
        proof, "SurveyPlan", lambda **given: usual(target="ort", seconds=0.01, percentile=50, **given)
    )


def test_a_device_without_a_power_sensor_is_not_a_failure(tiny_bundle, tmp_path, monkeypatch, quick):
    """Energy is requested by default."""
    no_sensors(monkeypatch)
    [row] = cnnx.prove(tmp_path / "p.tar.gz", bundles=[tiny_bundle], batches=[1]).rows
    assert (row["status"], row["energy"], row["gross_mj"]) == ("done", "unsupported", None)
    assert "ina: no INA3221 here; rapl: root alone" in row["no_energy"]
    seen = devices_page.page([devices_page.read_proof(tmp_path / "p.tar.gz")])
    for sensor in devices_page.SENSORS.values():
        assert f"| {sensor} | {devices_page.NEVER} |" in seen


def test_a_sensor_that_fails_in_its_pass_is_not_listed_and_not_a_failure(tiny_bundle, tmp_path):
    power, listener = failing(lambda step: step == "energy", rehearsal(), RuntimeError("the driver hangs"))
    plan = SurveyPlan(target="ort", seconds=0.01, percentile=50, power=power)
    archive = tmp_path / "p.tar.gz"
    [row] = cnnx.prove(archive, bundles=[tiny_bundle], batches=[1], plan=plan, listener=listener).rows
    assert (row["status"], row["energy"]) == ("done", "failed") and "driver hangs" in row["no_energy"]
    seen = devices_page.page([devices_page.read_proof(archive)])
    for sensor in devices_page.SENSORS.values():
        assert f"| {sensor} | {devices_page.NEVER} |" in seen


def test_a_record_from_a_different_machine_adds_no_sensor_to_this_one(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle", ignore=lambda *_: ["runs"])
    plan = SurveyPlan(target="ort", seconds=0.01, percentile=50, power=rehearsal(tick_ms=1000))
    cnnx.prove(tmp_path / "here.tar.gz", bundles=[bundle], batches=[1], plan=plan)
    assert len(devices_page.read_proof(tmp_path / "here.tar.gz")["energies"]) == 1
    [file] = bundle.glob("runs/*-energy-*")
    record = json.loads(file.read_text())
    record["environment"]["cpu"] = "another"
    file.write_text(json.dumps(record))
    quick = dataclasses.replace(plan, power=None)
    cnnx.prove(tmp_path / "again.tar.gz", bundles=[bundle], batches=[1], plan=quick)
    assert devices_page.read_proof(tmp_path / "again.tar.gz")["energies"] == []


def test_an_invalid_archive_name_or_bundle_is_refused_before_any_work(tmp_path):
    for refusal, archive, bundles, word in (
        (UsageError, "p.zip", [], "tar.gz"),
        (BundleError, "p.tar.gz", [tmp_path], "not a cnnx bundle"),
    ):
        with pytest.raises(refusal, match=word):
            cnnx.prove(tmp_path / archive, bundles=bundles)


def test_a_bundle_named_twice_or_a_folder_that_cannot_be_made_is_refused_before_any_work(
    tiny_bundle,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(proof, "doctor", lambda: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    for refusal, given in (
        (UsageError, {"bundles": [tiny_bundle] * 2}),
        (WriteFailed, {"bundles": [tiny_bundle], "folder": tmp_path / "file" / "work"}),
    ):
        with pytest.raises(refusal):
            cnnx.prove(tmp_path / "p.tar.gz", **given)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_bundle_is_rows_with_a_reason_and_the_archive_is_written(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    (bundle / "manifest.json").write_text("{}")
    plan = SurveyPlan(target="ort", seconds=0.01, percentile=50)
    archive = tmp_path / "p.tar.gz"
    made = cnnx.prove(archive, bundles=[bundle, tiny_bundle], batches=[1], plan=plan)
    assert [(row["model"], row["status"]) for row in made.rows] == [("damaged", "failed"), ("tiny", "done")]
    assert len(devices_page.read_proof(archive)["rows"]) == 2


def test_an_unwritable_path_is_refused_before_any_work(tiny_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.tar.gz").mkdir()
    steps = []
    places = (
        tmp_path / "file" / "p.tar.gz",
        tmp_path / "folder.tar.gz",
        "/proc/folder/p.tar.gz",
        "/proc/p.tar.gz",
    )
    for place in places:
        with pytest.raises(WriteFailed):
            cnnx.prove(place, bundles=[tiny_bundle], batches=[1], listener=steps.append)
    assert steps == [] and {path.name for path in tmp_path.iterdir()} == {"file", "folder.tar.gz"}


def test_a_failed_proof_keeps_its_work_and_reports_where(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    plan = SurveyPlan(target="ort", seconds=0.01, percentile=50)
    given = {"bundles": [tiny_bundle], "batches": [1], "plan": plan}
    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(proof, "_write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cnnx.prove(tmp_path / "p.tar.gz", listener=steps.append, **given)
    [left] = tmp_path.glob("cnnx-proof-*")
    assert f"--folder {left}" in steps[-1].step and steps[-1].note
    steps.clear()
    cnnx.prove(tmp_path / "p.tar.gz", listener=steps.append, folder=left, **given)
    assert steps == []
    cnnx.prove(tmp_path / "p.tar.gz", **given)
    assert list(tmp_path.glob("cnnx-proof-*")) == [left]


def test_a_proof_without_any_measurement_fails(tiny_bundle, tmp_path, monkeypatch, cnnx_command):
    command = ["doctor", "--proof", tmp_path / "p.tar.gz", "--bundle", tiny_bundle, "--no-power"]
    command += ["--folder", tmp_path / "work"]
    with monkeypatch.context() as patch:
        patch.setattr(survey, "bench", lambda places, **_: 1 / 0)
        code, out, _ = cnnx_command(*command)
    assert code == 6 and "ZeroDivisionError" in out
    assert "nothing was measured" in out and "ready to send" not in out
    assert [row["status"] for row in devices_page.read_proof(tmp_path / "p.tar.gz")["rows"]] == ["failed"] * 2
    assert cnnx_command(*command)[0] == 6  # a failed cell has ended
    code, out, _ = cnnx_command(*command, "--again")
    assert code == 0 and "ready to send" in out and "gross" not in out
    assert "energy" not in devices_page.read_proof(tmp_path / "p.tar.gz")["rows"][0]
    code, _, said = cnnx_command("doctor", "--no-power")
    assert code == 2 and "--no-power" in said
    code, _, said = cnnx_command("doctor", "--proof", tmp_path / "q.tar.gz", "--again")
    assert code == 2 and "add --folder" in said


def test_exports_use_the_named_weights_and_energy_is_announced_once(tmp_path, monkeypatch):
    exported = {}

    def bundle(name, precision, source, batch, folder, plan, listener):
        exported[name] = plan.weights_of(source)
        raise UsageError("not here")

    monkeypatch.setattr(survey, "_bundle", bundle)
    notes = []
    plan = SurveyPlan(power=rehearsal())
    made = cnnx.prove(tmp_path / "p.tar.gz", plan=plan, listener=notes.append, folder=tmp_path / "work")
    assert exported == dict(proof.PROVEN) and len(made.rows) == 12 and made.exit_code == 6
    assert [note.step.split(" of ")[0] for note in notes] == ["Energy is measured after latency: 12 passes"]
    assert (tmp_path / "work" / "survey.md").read_text().count("| failed |") == 12


def test_the_page_is_what_the_archives_give():
    assert devices_page.PAGE.read_text() == devices_page.text_of(devices_page.ARCHIVES)
