"""`--gates`, `--strict` and `--allow-inconclusive`: every gate is reported, and the exit code follows."""

import json
import shutil
from functools import partial

import pytest

from tests.conftest import invoke

GATES = """
latency_p50_ms = 1000
latency_p99_ms = 1000
memory_mib = 10_000
energy_mj = 5
engine_mib = 5
latency_ratio = 1.1
graph_mib = 1
accuracy = 0
divergence_nats = 100
"""
FEW = ("--validation-data", "digits", "--validation-images", 16)


def judged(bundle, original, gates, *options):
    """Validate on images, with the original that the bundle was made from."""
    return invoke("validate", bundle, *FEW, "--model", original, "--gates", gates, *options)


@pytest.fixture
def measured(tiny_bundle, tmp_path):
    """A bundle without an older record of its latency, measured again for a moment."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "b")
    for file in folder.glob("runs/*-benchmark-*"):
        file.unlink()
    assert invoke("bench", folder, "--seconds", 0.05, "--target", "ort").exit_code == 0
    return folder


def test_all_gates_are_reported_and_the_worst_decides(measured, tiny, tmp_path):
    (tmp_path / "gates.toml").write_text(GATES)
    judge = partial(judged, measured, tiny, tmp_path / "gates.toml")
    printed = judge("--json")
    found = {gate["name"]: gate for gate in json.loads(printed.stdout)["result"]["validation"]["gates"]}
    assert printed.exit_code == 6
    assert {name: gate["verdict"] for name, gate in found.items() if "top" not in name} == {
        "clear agreement": "not judged",
        "divergence": "passed",
        "accuracy": "passed",
        "accuracy / original's": "inconclusive",
        "latency p50": "passed",
        "latency p99": "passed",
        "memory": "passed",
        "energy per image": "not judged",
        "graph size": "passed",
        "engine size": "not judged",
    }
    assert found["latency p50"]["interval"]["low"] <= found["latency p50"]["value"]
    assert "cnnx bench measures it" in found["energy per image"]["reason"]
    assert found["engine size"]["reason"] == "the bundle has no engine"
    assert (found["top-1 in top-5"]["decides_at"], found["top-1 in top-5"]["counted"]) == (381, "images")
    assert judge("--allow-inconclusive").exit_code == 6  # two were not judged
    assert judge("--strict").exit_code == 1
    (tmp_path / "gates.toml").write_text("latency_p50_ms = 0.0001")
    failed = judge()
    assert failed.exit_code == 1 and "latency p50" in failed.stdout and "<= 0.0001 ms" in failed.stdout


def test_without_the_original_or_a_measurement_the_reason_is_reported(measured, tmp_path):
    (tmp_path / "gates.toml").write_text(
        "latency_p50_ms = 5\nbatch = 2\naccuracy = 0.99\ndivergence_nats = 1"
    )
    shown = invoke("validate", measured, *FEW, "--gates", tmp_path / "gates.toml")
    assert shown.exit_code == 1
    told = " ".join(shown.stdout.split())
    assert "measured at batch 1, not at batch 2" in told and "the original is not available" in told
    assert "FAILED" in told


def test_a_run_is_judged_again_under_other_gates_without_running_anything(measured, tmp_path, monkeypatch):
    (tmp_path / "gates.toml").write_text("latency_p50_ms = 1000\ntop1_agreement = 0.1\ntop1_in_top5 = 0.1\n")
    [validation] = (measured / "runs").glob("*-validation-*")
    [benchmark] = (measured / "runs").glob("*-benchmark-*")
    before = sorted(measured.rglob("*"))
    monkeypatch.setattr("cnnx.pipeline.target.OpenSubject.open", lambda *_: pytest.fail("it ran"))

    def again(run, *options):
        result = invoke(
            "validate", measured, "--from", run, "--gates", tmp_path / "gates.toml", "--json", *options
        )
        data = json.loads(result.stdout)["result"]["again"]
        return result.exit_code, {gate["name"]: gate["verdict"] for gate in data["gates"]}

    code, gates = again(validation)
    assert (gates["top-1 agreement"], gates["latency p50"]) == ("passed", "not judged") and code == 6
    code, gates = again(benchmark.name)
    assert gates == {"top-1 agreement": "not judged", "top-1 in top-5": "not judged", "latency p50": "passed"}
    code, gates = again(measured / "runs", "--report", tmp_path / "r.xml")
    assert (gates["top-1 agreement"], gates["latency p50"]) == ("passed", "passed")
    (tmp_path / "gates.toml").write_text("latency_p50_ms = 0.0001")
    assert again(measured / "runs")[0] == 1
    assert sorted(measured.rglob("*")) == before and "latency p50" in (tmp_path / "r.xml").read_text()


@pytest.mark.parametrize("spoil", [lambda data: data[:200], lambda data: data.replace('"tiny"', '"other"')])
def test_a_run_that_is_damaged_or_about_something_else_is_refused(tiny_bundle, tmp_path, spoil):
    [file] = (tiny_bundle / "runs").glob("*-validation-*")
    (tmp_path / "run.json").write_text(spoil(file.read_text()))
    assert invoke("validate", tiny_bundle, "--from", tmp_path / "run.json").exit_code == 3
    assert invoke("validate", tiny_bundle, "--from", tmp_path).exit_code == 3  # no record is left
    assert invoke("validate", tiny_bundle, "--from", tmp_path / "absent").exit_code == 3
    assert invoke("validate", tiny_bundle, "--from", file, "--validation-data", "digits").exit_code == 2


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((*FEW, "--gates", "absent.toml"), 3, "the gates cannot be read"),
        (("--gates", "absent.toml"), 2, "add --validation-data"),
        ((*FEW, "--strict", "--allow-inconclusive"), 2, "exclude each other"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_any_work(tiny_bundle, options, code, words):
    result = invoke("validate", tiny_bundle, *options)
    assert result.exit_code == code and words in result.stderr
