"""`cnnx.compare`: planted changes are found, what cannot be compared is named, and bad input is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from scipy import stats as scipy_stats

import cnnx
from cnnx.bundle import Bundle
from cnnx.errors import CnnxError, RecordError
from cnnx.measure.figures import figures_of
from cnnx.measure.samples import Latency
from cnnx.pipeline.compare.compare import compare
from cnnx.pipeline.compare.report import write_comparison
from cnnx.record import Record
from cnnx.stats import Verdict
from tests.conftest import invoke


@pytest.fixture(scope="module")
def sides(tiny_bundle, tmp_path_factory):
    """Two copies of a bundle, with only export's validation among their records."""
    folder = tmp_path_factory.mktemp("sides")
    for name in ("base", "new"):
        shutil.copytree(tiny_bundle, folder / name)
        for file in (folder / name / "runs").glob("*.json"):
            if "-validation-" not in file.name:
                file.unlink()
    return folder / "base", folder / "new"


@pytest.fixture
def pair(sides, tmp_path):
    return tuple(shutil.copytree(side, tmp_path / side.name) for side in sides)


def template(tiny_bundle):
    """The benchmark that export made of the bundle's graph."""
    records = Bundle.open(tiny_bundle).records()
    return next(one for one in records if one.kind == "benchmark" and one.subject.artefact == "graph")


def measured(tiny_bundle, bundle, samples, *, together="", **changes):
    """Add a benchmark with these samples in ms, changed in its subject, conditions or environment."""
    record = template(tiny_bundle)
    result = json.loads(json.dumps(record.result))
    times = tuple(round(each * 1e6) for each in samples)
    result["latency"] |= Latency(times, changes.pop("batch", 1), 5, "steady", True).as_dict()
    figures = figures_of(times).as_dict()
    result["figures"] = {**figures, "of": "end to end", "images_per_second": 1.0}
    result["conditions"] |= {"together": together, "cuda_graph": changes.pop("cuda_graph", None)}
    result["validity"] = {"valid": True, "findings": [], "remarks": []} | changes.pop("validity", {})
    result["memory"]["added_bytes"] = changes.pop("memory", 2**20)
    environment = {**record.environment, **changes.pop("environment", {})}
    subject = dataclasses.replace(record.subject, **changes)
    result["subject"] = dataclasses.asdict(subject)
    Bundle.open(bundle).add_record(Record("benchmark", subject, environment, result))


def series(seed, median=1.0, n=2000, noise=0.02):
    return median * np.exp(np.random.default_rng(seed).normal(0, noise, n))


def only(result, what):
    [change] = [each for each in result.pairs[0].changes if each.what == what]
    return change


def gates(tmp_path, text):
    (tmp_path / "gates.toml").write_text(text)
    return tmp_path / "gates.toml"


def test_a_planted_regression_of_one_percent_is_found_where_runs_took_turns(tiny_bundle, pair, tmp_path):
    """Both drift alike by 30 %, which turns cancel."""
    drift = np.linspace(1, 1.3, 2000)
    for bundle, seed, slower in zip(pair, (1, 2), (1.0, 1.01), strict=True):
        measured(tiny_bundle, bundle, series(seed) * drift * slower, together="same", memory=2**20 * seed)
    result = compare(*pair, gates=gates(tmp_path, "latency_ratio = 1.0\nmemory_ratio = 1.5"))
    change = only(result, "latency p50, batch 1")
    assert "200 rounds of turns" in change.how and change.outcome == "worse"
    assert change.interval.low < 1.01 < change.interval.high and change.interval.low > 1.005
    failed = {gate.name: gate for gate in result.pairs[0].gates if gate.verdict is Verdict.FAILED}
    assert set(failed) == {"latency / base's", "memory / base's"} and result.exit_code == 1
    assert failed["latency / base's"].interval == change.interval
    assert only(result, "memory, batch 1").change == 2


def test_without_turns_both_medians_intervals_decide_and_the_number_needed_is_stated(
    tiny_bundle, pair, tmp_path
):
    measured(tiny_bundle, pair[0], series(1))
    measured(tiny_bundle, pair[1], series(2, 1.001))
    result = compare(*pair, gates=gates(tmp_path, "latency_ratio = 1.0\ntop1_agreement = 0"))
    change = only(result, "latency p50, batch 1")
    assert "not in turns" in change.how and change.outcome == "no difference shown"
    [gate] = [gate for gate in result.pairs[0].gates if gate.name == "latency / base's"]
    assert gate.verdict is Verdict.INCONCLUSIVE and gate.counted == "samples" and gate.decides_at > 2000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "GPU: other"}, "device differs: CPU: "),
        ({"cuda_graph": True}, None),
        ({"environment": {"power_mode": "1 15W"}}, "power mode differs: 0 MAXN and 1 15W"),
        ({"environment": {"cores": 64}}, "cores differs: "),
        ({"validity": {"valid": False, "findings": [{"rule": "unsteady", "reason": "x", "hint": "y"}]}},
         "new: the measurement is invalid (unsteady)"),
    ],
)  # fmt: skip
def test_a_latency_that_must_not_be_compared_names_what_differs(tiny_bundle, pair, tmp_path, change, words):
    base = {"cuda_graph": False, "environment": {"power_mode": "0 MAXN"}}
    measured(tiny_bundle, pair[0], series(1), **base)
    environment = base["environment"] | change.get("environment", {})
    measured(tiny_bundle, pair[1], series(2), **{**base, **change, "environment": environment})
    result = compare(*pair, gates=gates(tmp_path, "latency_ratio = 1.5"))
    found = only(result, "latency p50, batch 1")
    assert found.outcome == "not compared" and (words or "CUDA graph differs: False and True") in found.how
    [gate] = [gate for gate in result.pairs[0].gates if gate.name == "latency / base's"]
    assert gate.verdict is Verdict.NOT_JUDGED and gate.reason == found.how and result.exit_code == 6


def test_devices_are_kept_apart(tiny_bundle, pair):
    """Both sides have records of two devices: each is compared with its own."""
    for device, ratio in (("CPU: one", 1.2), ("CPU: two", 0.5)):
        measured(tiny_bundle, pair[0], series(1), device=device)
        measured(tiny_bundle, pair[1], series(2, ratio), device=device)
    found = [each for each in compare(*pair).pairs[0].changes if each.what.startswith("latency")]
    assert [round(each.change, 1) for each in found] == [1.2, 0.5]
    assert [each.outcome for each in found] == ["worse", "better"]


def rejudged(bundle, right, *, images="ab" * 32):
    """Replace the validation by one with these images right, of an original that is always right."""
    [file] = (bundle / "runs").glob("*-validation-*")
    data = json.loads(file.read_text())
    n = len(right)
    outcomes = {
        "images": images,
        "original": [1] * n,
        "engine": [int(each) for each in right],
        "labels": [1] * n,
    }
    data["result"] |= {"outcomes": outcomes, "images": n}
    counts = {"both": int(sum(right)), "only_original": int(n - sum(right)), "only_engine": 0, "neither": 0}
    data["result"] |= {"right": counts, "reasons": [], "verdict": "passed", "gates": []}
    file.write_text(json.dumps(data))


def test_accuracy_on_the_same_images_is_paired(pair, tmp_path):
    """McNemar's exact test is a binomial test of the images on which the two differ."""
    base = np.arange(1000) % 10 != 0
    new = base.copy()
    new[:30], new[30:45] = False, True
    for bundle, right in zip(pair, (base, new), strict=True):
        rejudged(bundle, right)
    result = compare(*pair, gates=gates(tmp_path, "accuracy_loss_points = 0.5"))
    change = only(result, "accuracy")
    lost, won = int((base & ~new).sum()), int((~base & new).sum())
    p = scipy_stats.binomtest(lost, lost + won).pvalue
    assert f"{lost} only base, {won} only new, McNemar p = {p:.2g}" in change.how
    assert change.outcome == "worse" and change.change == pytest.approx((won - lost) / 1000)
    loss = result.pairs[0].gates[-1]
    assert (loss.name, loss.verdict) == ("accuracy lost to base", Verdict.FAILED)
    rejudged(pair[1], new, images="cd" * 32)
    unpaired = only(compare(*pair), "accuracy")
    assert "not paired" in unpaired.how and unpaired.interval.low < change.interval.low


def test_a_run_and_a_report_hold_what_their_bundle_holds(tiny_bundle, pair, tmp_path):
    for bundle, seed in zip(pair, (1, 2), strict=True):
        measured(tiny_bundle, bundle, series(seed, seed))
    whole = only(compare(*pair), "latency p50, batch 1")
    runs = [next((bundle / "runs").glob("*-benchmark-*")) for bundle in pair]
    alone = compare(*runs)
    assert only(alone, "latency p50, batch 1") == whole and only(alone, "graph size").change == 1
    for bundle in pair:
        cnnx.write_report(bundle, tmp_path / f"{bundle.name}.json")
    reported = compare(tmp_path / "base.json", tmp_path / "new.json")
    assert only(reported, "latency p50, batch 1").change == pytest.approx(whole.change)
    assert only(reported, "top-1 agreement").new == only(compare(*pair), "top-1 agreement").new
    assert compare(pair[0], tmp_path / "new.json").pairs


def test_a_survey_is_compared_cell_by_cell(tiny, tmp_path):
    few = {"images": 16, "seconds": 0.05, "precisions": ("fp16", "int8"), "batches": (1,)}
    cnnx.survey([str(tiny)], out=tmp_path / "s", **few)
    result = compare(tmp_path / "s", tmp_path / "s")
    assert [pair.new.split()[0] for pair in result.pairs] == ["fp16", "int8"]
    assert {
        only(dataclasses.replace(result, pairs=(pair,)), "graph size").change for pair in result.pairs
    } == {1}
    shutil.rmtree(tmp_path / "s" / "bundles")
    rows = compare(tmp_path / "s", tmp_path / "s")
    assert only(rows, "latency p50, batch 1").change == 1
    shutil.rmtree(tmp_path / "s" / "rows")
    (tmp_path / "s" / "rows").mkdir()
    with pytest.raises(RecordError, match="holds no figures"):
        compare(tmp_path / "s", tmp_path / "s")


def spoiled(pair, how):
    """A path that cannot be compared, by what is wrong with it."""
    bundle = pair[1]
    [file] = (bundle / "runs").glob("*-validation-*")
    data = json.loads(file.read_text())
    target = bundle.parent / "spoiled.json"
    texts = {
        "absent": None,
        "half-written": file.read_text()[:300],
        "NaN": json.dumps({**data, "result": {**data["result"], "logit_sqnr_db": float("nan")}}),
        "another version": json.dumps({**data, "schema": 99}),
        "no record": json.dumps({"kind": "x"}),
        "a self-test": json.dumps({**data, "kind": "selftest"}),
        "a number": "3",
        "not text": "\x00",
        "an empty report": "[]",
        "a report of a list": "[[1]]",
        "an unknown column": '[{"kind": "validation", "colour": "red"}]',
        "a report without a subject": '[{"kind": "benchmark", "p50_ns": 3}]',
        "NaN in a report": '[{"kind": "benchmark", "mean_ns": NaN}]',
    }
    if texts[how] is not None:
        target.write_text(texts[how])
    return target


HOW = ("absent", "half-written", "NaN", "another version", "no record", "a self-test", "a number", "not text",
       "an empty report", "a report of a list", "an unknown column", "a report without a subject",
       "NaN in a report")  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_what_cannot_be_compared_is_refused_with_a_hint(pair, how):
    path = spoiled(pair, how)
    for sides in ((pair[0], path), (path, pair[0])):
        with pytest.raises(CnnxError) as refusal:
            compare(*sides)
        assert refusal.value.exit_code == 3 and refusal.value.hint and "spoiled.json" in refusal.value.where


def test_other_networks_and_folders_are_refused(pair, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="neither a bundle nor a survey"):
        compare(pair[0], tmp_path / "empty")
    row = {
        "kind": "benchmark",
        "network": "other",
        "artefact": "graph",
        "digest": "0" * 64,
        "device": "CPU: x",
    }
    row |= {"precision": "int8", "runtime": "ort 1", "p50_ns": 3, "batch": 1}
    (tmp_path / "other.json").write_text(json.dumps([row]))
    with pytest.raises(RecordError, match="the base has tiny int8, the other side other int8"):
        compare(pair[0], tmp_path / "other.json")


def test_bundles_without_records_are_compared_by_size(pair):
    for bundle in pair:
        shutil.rmtree(bundle / "runs")
    result = compare(*pair)
    assert [change.what for change in result.pairs[0].changes] == ["graph size"] and result.exit_code == 0


@pytest.mark.parametrize("suffix", [".md", ".xml", ".html", ".json", ".csv"])
def test_every_format_has_changes_and_gates(tiny_bundle, pair, tmp_path, suffix):
    if suffix == ".html":
        pytest.importorskip("altair", reason="HTML reports need the extra report")
    measured(tiny_bundle, pair[0], series(1))
    measured(tiny_bundle, pair[1], series(2, 1.5))
    found = compare(*pair, gates=gates(tmp_path, "latency_ratio = 1.1"))
    write_comparison(found, tmp_path / f"r{suffix}")
    text = (tmp_path / f"r{suffix}").read_text()
    assert "latency / base" in text and "failed" in text.lower() and "1.1" in text
    assert suffix == ".xml" or "latency p50, batch 1" in text


def test_the_command_prints_reports_and_exits_by_the_gates(pair, tmp_path):
    table = gates(tmp_path, "graph_mib = 0.0001")
    failed = invoke("compare", *pair, "--gates", table, "--report", tmp_path / "r.xml", "--json")
    assert failed.exit_code == 1 and json.loads(failed.stdout)["result"]["verdict"] == "failed"
    assert 'failures="1"' in (tmp_path / "r.xml").read_text()
    shown = invoke("compare", *pair, "--gates", table)
    assert shown.exit_code == 1 and "graph size" in shown.stdout and "FAILED" in shown.stdout
    assert invoke("compare", *pair, "--report", "r.doc").exit_code == 2
    assert invoke("compare", pair[0], tmp_path / "absent").exit_code == 3
