"""Gates decided by records alone, of a bundle and verdicts that are made up."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from cnnx import agreement
from cnnx.errors import GateError, RecordError
from cnnx.gates import DEFAULTS, Limits
from cnnx.machine.environment import detect
from cnnx.measure.figures import figures_of
from cnnx.measure.samples import Latency
from cnnx.pipeline.judge.again import judge_again
from cnnx.pipeline.judge.demand import Demand, demand_of
from cnnx.record import Record, Subject
from cnnx.selftest import self_test
from cnnx.stats import Verdict
from tests.bundle.test_bundle import make

ORIGINAL = np.random.default_rng(0).normal(size=(600, 10)).astype(np.float32)
IDS = [f"{i}.png" for i in range(600)]
ALL = Demand(Limits(top1_agreement=0.9, accuracy=0.0, graph_mib=1, engine_mib=1, latency_ratio=1))


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "b")


def flipped(share):
    """Logits with another first class for this share of the images."""
    engine = ORIGINAL.copy()
    count = round(600 * share)
    engine[:count] = -engine[:count]
    return engine


def record(bundle, engine, *, kind="validation", date="2026-01-01", device="CPU: one", **judged):
    graph = bundle.manifest.files["model.onnx"]
    subject = Subject("net", "graph", graph, "int8", "ort 1", device)
    options = {"subject": subject, "ids": IDS, "image_set": "made up"}
    if kind == "selftest":
        tested = self_test(ORIGINAL, engine, original=ORIGINAL, precision="int8", **options)
        result = tested.as_dict()
    else:
        options |= {"limits": DEFAULTS["int8"], "labels": None, "images": "ab" * 32, **judged}
        result = agreement.judge(ORIGINAL, engine, **options).as_dict()
    made = Record(kind, subject, detect().as_dict(), result, f"{date}T12:00:00+00:00")
    return bundle.add_record(made)


def benchmark(bundle, p50_ms, batch):
    """A record of a measurement at a batch size."""
    times = tuple(round(p50_ms * 1e6) + i for i in range(700))
    subject = Subject("net", "graph", bundle.manifest.files["model.onnx"], "int8", "ort 1", "CPU: one")
    result = {
        "subject": dataclasses.asdict(subject),
        "figures": {**figures_of(times).as_dict(), "of": "end to end", "images_per_second": 1.0},
        "latency": Latency(times, batch, 5, "steady", complete=True).as_dict(),
        "memory": dict.fromkeys(("before_bytes", "peak_bytes", "after_bytes", "added_bytes"), 2**20),
        "remark": "",
    }
    date = f"2026-02-0{batch}T12:00:00+00:00"
    return bundle.add_record(Record("benchmark", subject, detect().as_dict(), result, date))


def gates(again):
    return {gate.name: gate for gate in again.gates}


def test_a_record_is_found_by_its_path_or_its_name_in_the_bundle(bundle, tmp_path, monkeypatch):
    file = record(bundle, flipped(0.2))
    monkeypatch.chdir(tmp_path)
    elsewhere = file.rename(tmp_path / "taken along.json")
    for run in (elsewhere, record(bundle, flipped(0.2)).relative_to(bundle.path / "runs")):
        again = judge_again(bundle, run, ALL)
        assert gates(again).keys() == {"top-1 agreement", "graph size"} and again.notes == ()
        assert gates(again)["top-1 agreement"].value == pytest.approx(0.8)
        assert again.verdict is Verdict.FAILED
        assert again.records == (f"{run.name} of 2026-01-01T12:00:00",)


def test_what_a_file_of_gates_states_is_reported_though_nothing_was_measured(bundle):
    file = record(bundle, flipped(0))
    stated = dataclasses.replace(ALL, stated=frozenset({"accuracy", "engine_mib", "latency_ratio"}))
    found = gates(judge_again(bundle, file, stated))
    assert found["accuracy"].reason == "the images have no labels"
    assert found["engine size"].reason == "the bundle has no engine"
    assert "latency / base's" not in found, "there is no base"
    assert {found[name].verdict for name in ("accuracy", "engine size")} == {Verdict.NOT_JUDGED}


def test_in_a_folder_the_newest_verdict_counts_and_what_is_not_of_its_subject_does_not(bundle):
    record(bundle, flipped(0.5), date="2026-01-01")
    newest = record(bundle, flipped(0.3), kind="judgement", date="2026-01-03")
    newest.rename(newest.with_name("0-first-by-name.json"))
    record(bundle, flipped(0.4), date="2026-01-02")
    record(bundle, flipped(0), kind="selftest", date="2026-01-05")
    again = judge_again(bundle, bundle.path / "runs", ALL)
    assert gates(again)["top-1 agreement"].value == pytest.approx(0.7)
    assert again.records == ("0-first-by-name.json of 2026-01-03T12:00:00",) and again.notes == ()
    record(bundle, flipped(0.1), device="CPU: two", date="2026-01-04")
    other = judge_again(bundle, bundle.path / "runs", ALL)
    assert other.subject.device == "CPU: two" and len(other.records) == 1
    assert gates(other)["top-1 agreement"].value == pytest.approx(0.9)


def test_a_folder_is_about_what_was_validated_even_if_something_else_was_measured_since(bundle):
    record(bundle, flipped(0.1), device="CPU: two")
    benchmark(bundle, 1, 1)
    again = judge_again(bundle, bundle.path / "runs", ALL)
    assert again.subject.device == "CPU: two" and gates(again)["top-1 agreement"].value == pytest.approx(0.9)


def test_records_that_are_damaged_or_of_another_graph_are_left_out_of_a_folder_and_refused_alone(bundle):
    good, damaged, foreign = (record(bundle, flipped(0), date=f"2026-01-0{day}") for day in (1, 2, 3))
    damaged.write_text(damaged.read_text()[:500])
    data = json.loads(foreign.read_text())
    data["subject"]["digest"] = data["result"]["subject"]["digest"] = "e" * 64
    foreign.write_text(json.dumps(data))
    again = judge_again(bundle, bundle.path / "runs", ALL)
    assert [name.split()[0] for name in again.records] == [good.name]
    assert [note.split()[0] for note in again.notes] == [damaged.name, foreign.name]
    assert "a different graph" in again.notes[1]
    for file, words in (
        (damaged, "invalid JSON"),
        (foreign, "not about the bundle: it is for a different graph"),
        (
            record(bundle, flipped(0), kind="selftest"),
            "a selftest record about the graph holds nothing to judge",
        ),
        (bundle.path / "absent", "cannot be read"),
    ):
        with pytest.raises(RecordError, match=words) as refusal:
            judge_again(bundle, file, ALL)
        assert refusal.value.hint
    (bundle.path / "empty").mkdir()
    with pytest.raises(RecordError, match="no record to judge"):
        judge_again(bundle, bundle.path / "empty", ALL)


def test_measurements_count_at_the_batch_that_the_gates_are_about(bundle):
    for batch in (1, 4):
        benchmark(bundle, batch, batch)
    for batch in (None, 1, 4):
        limits = Limits(latency_p50_ms=2, memory_mib=2, top1_agreement=0, energy_mj=1, batch=batch)
        found = gates(
            judge_again(bundle, bundle.path / "runs", Demand(limits, frozenset({"top1_agreement"})))
        )
        assert found["latency p50"].value == pytest.approx(batch or 1, rel=0.01)
        assert found["latency p50"].verdict is (Verdict.FAILED if batch == 4 else Verdict.PASSED)
        assert found["memory"].verdict is Verdict.PASSED
        assert found["top-1 agreement"].reason == "the run has no validation"
        assert "cnnx bench" in found["energy per image"].reason


def test_a_measurement_of_the_original_is_nothing_to_judge(bundle):
    file = record(bundle, flipped(0))
    data = json.loads(file.read_text())
    for subject in (data["subject"], data["result"]["subject"]):
        subject |= {"artefact": "original", "digest": bundle.manifest.weights["digest"], "graph_digest": ""}
    file.write_text(json.dumps(data))
    with pytest.raises(RecordError, match="a validation record about the original holds nothing to judge"):
        judge_again(bundle, file, ALL)
    with pytest.raises(RecordError, match="no record to judge"):
        judge_again(bundle, bundle.path / "runs", ALL)


def test_what_proves_nothing_is_not_judged_under_other_gates_either(bundle):
    file = record(bundle, flipped(0), cannot_judge=("stand-in weights", "synthetic images"))
    found = gates(judge_again(bundle, file, ALL))
    assert found["top-1 agreement"].verdict is Verdict.NOT_JUDGED
    assert found["top-1 agreement"].reason == "stand-in weights; synthetic images"
    assert found["graph size"].verdict is Verdict.PASSED


def test_a_margin_of_clear_images_is_that_of_the_gates(bundle):
    file = record(bundle, flipped(0.2))
    values = [
        gates(judge_again(bundle, file, Demand(Limits(clear_agreement=0, clear_margin=margin))))[
            "clear agreement"
        ]
        for margin in (0.0, 0.3)
    ]
    assert values[0].value == pytest.approx(0.8) and values[0].decides_at is None
    assert values[1].value != values[0].value


def test_the_keys_of_a_file_take_precedence_over_the_recipes_and_those_over_the_defaults(tmp_path):
    recipe = {**make(tmp_path / "b").manifest.recipe, "gates": {"memory_mib": 5, "int8": {"graph_mib": 2}}}
    bundle = make(tmp_path / "b", recipe=recipe)
    own = demand_of(bundle)
    assert (own.limits.memory_mib, own.limits.graph_mib, own.stated) == (5, 2, frozenset())
    assert own.limits.top5_agreement == DEFAULTS["int8"].top5_agreement
    (tmp_path / "gates.toml").write_text(
        "graph_mib = 3\n[fp16]\nmemory_mib = 7\n[int8]\ntop5_agreement = 0.5"
    )
    found = demand_of(bundle, tmp_path / "gates.toml")
    assert (found.limits.memory_mib, found.limits.graph_mib, found.limits.top5_agreement) == (5, 3, 0.5)
    assert found.stated == {"graph_mib", "top5_agreement"}
    with pytest.raises(GateError, match="cannot be read"):
        demand_of(bundle, tmp_path / "absent.toml")
