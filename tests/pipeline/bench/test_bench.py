"""`bench` with real networks on ONNX Runtime and with the imitation of TensorRT; no times are tested."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shutil

import onnx
import pytest
from rich.console import Console
from typer.testing import CliRunner

import cnnx
from cnnx.cli.app import app
from cnnx.errors import BundleError, EnvironmentLacks, UsageError
from cnnx.measure.validity import Validity
from cnnx.pipeline.bench.measurement import advice_of, int8_with_fp16
from cnnx.pipeline.plain import plain
from cnnx.pipeline.report.report import report_of
from cnnx.pipeline.shown import bench_blocks, energy_blocks
from cnnx.record import Subject, read_record
from cnnx.report.terminal import as_text, draw
from cnnx.report.words import names_of
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from tests.doubles.imitated_trt import ImitatedBindings
from tests.doubles.rehearsal import failing, rehearsal
from tests.inputs.tiny import DIGITS, tiny_graph

DEAD = EnvironmentLacks("the power sampler ended")


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache):
    """FP16 and INT8 of one network, for batches 1 to 4."""
    folder = tmp_path_factory.mktemp("made")
    model = tiny_graph()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, folder / "tiny.onnx")
    for precision in ("fp16", "int8"):
        out = str(folder / precision)
        command = ["export", str(folder / "tiny.onnx"), f"--{precision}", "--batch", "1..4", "--out", out]
        done = CliRunner().invoke(app, [*command, *DIGITS, "--validation-images", "16", "--target", "ort"])
        assert done.exit_code in (0, 6), done.output  # 16 images decide nothing
    return folder


@pytest.fixture
def bundles(made, tmp_path):
    shutil.copytree(made, tmp_path / "b")
    return [tmp_path / "b" / "fp16", tmp_path / "b" / "int8"]


def test_bundles_take_turns_and_a_batch_that_does_not_fit_is_a_row(bundles, cnnx_command, tmp_path):
    code, out, _ = cnnx_command(
        "bench", *bundles, "--batch", "2,8", "--seconds", "0.02", "--percentile", "90", "--layers",
        "--target", "ort", "--report", tmp_path / "r.json", "--json",
    )  # fmt: skip
    result = json.loads(out)["result"]
    fp16, int8 = result["measurements"]
    assert code == 0 and [m["subject"]["precision"] for m in (fp16, int8)] == ["fp16", "int8"]
    assert [(row["batch"], row["reason"][:11]) for row in result["unmeasured"]] == [(8, "the graph t")] * 2
    assert int8["conditions"] == {
        "cuda_graph": None, "percentile": 90.0, "min_seconds": 0.02, "side_by_side": 2,
        "together": fp16["conditions"]["together"],
        "tuned_for": None, "largest": None,
    }  # fmt: skip
    assert int8["conditions"]["together"]
    figures = int8["figures"]
    assert figures["of"] == "end to end" and figures["p50_interval"]["low"] <= figures["p50_ns"]
    assert figures["percentile_ns"] == figures["p90_ns"] and figures["block"] >= 1
    assert len(fp16["latency"]["samples_ns"]) == len(int8["latency"]["samples_ns"]) >= 100
    assert int8["validity"]["valid"] and not int8["validity"]["findings"]
    shares = int8["layers"]["shares"]
    assert sum(shares.values()) == pytest.approx(1) and shares["quantize"] > 0 and result["advice"] == []
    # Weights: 16 x 25 + 10 x 3136 values, in two bytes and in one; biases and scales on top.
    weights = {m["subject"]["precision"]: m["predicted"]["weights_bytes"] for m in (fp16, int8)}
    assert 63520 <= weights["fp16"] < 64000 and 31760 <= weights["int8"] < 32200
    assert fp16["predicted"]["io_bytes"] == 2 * 4 * (32 * 32 + 10)
    assert fp16["memory"]["added_bytes"] > 0 and fp16["memory"]["libraries_bytes"] > 2**20
    assert fp16["memory"]["gpu_bytes"] is None and fp16["memory"]["failed"] == ""
    assert fp16["states"][-1]["throttling"] is None and len(fp16["states"]) >= 2

    [record] = [file for file in bundles[1].glob("runs/*-benchmark-*") if read_record(file).result == int8]
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    kept = [(row["precision"], row["batch"], row["valid"]) for row in rows if row["batch"] == 2]
    assert kept == [("fp16", 2, True), ("int8", 2, True)] and record.exists()


def test_engines_report_parts_and_are_checked_and_compared(bundles, monkeypatch, cnnx_command):
    """The imitation's kernels take a microsecond and Python enqueues them, so the runs are enqueue-bound."""
    imitated = ImitatedBindings("11.4.0.106", times={"conv": 0.04, "act": 0.01})
    imitated.device.name = "NVIDIA GeForce RTX 3090"
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(imitated))
    for bundle in bundles:
        cnnx.build(bundle, target="tensorrt")
    result = cnnx.bench(bundles, batch=[2], seconds=0.01, percentile=90, layers=True)
    assert result.exit_code == 6
    explained = [one.layers.explanation for one in result.measurements]
    for found, precision in zip(explained, ("fp16", "int8"), strict=True):
        # Shapes are those of the largest batch, 4: 16 x 25 x 14 x 14 and 10 x 3136 MACs an image.
        [conv, fc] = [layer for layer in found.layers if layer.macs]
        assert (conv.macs, fc.macs, conv.type) == (2 * 78_400, 2 * 31_360, precision)
        assert conv.data_bytes == 2 * (1024 + 3136) * {"fp16": 2, "int8": 1}[precision]
        assert found.peaks.source.startswith("NVIDIA Ampere GA102") and found.unmatched == 0
        assert conv.attained == pytest.approx(conv.memory_ns / 40_000) and conv.bound == "memory"
        assert sum(found.shares.values()) == pytest.approx(1) and found.shares["transfer"] > 0
    for measured in result.measurements:
        assert measured.conditions.cuda_graph and measured.subject.artefact == "engine"
        assert list(measured.figures()) == ["with transfers", "GPU compute", "end to end"]
        assert measured.as_dict()["figures"]["of"] == "with transfers"
        [rule] = [f for f in measured.validity.findings if f.rule == "enqueue-bound"]
        assert "larger --batch" in rule.hint
        assert measured.predicted.source == "engine" and "compute" in {x.kind for x in measured.layers.layers}
    [advice] = result.advice
    assert advice.recommended is None and plain(result)["advice"][0]["recommended"] is None
    assert "as the fp16 measurement is invalid (enqueue-bound" in str(advice)
    believed = [dataclasses.replace(one, validity=Validity((), ())) for one in result.measurements]
    [advice] = advice_of(believed)
    assert advice.recommended == "fp16" and advice.comparison.outcome == "no difference shown"
    assert "use FP16" in str(advice)

    assert explained[1].sentence in as_text(result.blocks(), width=400)
    page = report_of([bundles[1]])
    [times] = [section for section in page.sections if section.title == "Time by layer"]
    assert [chart.kind for chart in times.charts] == ["spent", "roofline", "layers"]
    assert explained[1].sentence in times.charts[0].text
    assert {row["mark"] for row in times.charts[1].rows} == {"roof", "layer"}

    code, out, _ = cnnx_command("bench", *bundles, "--seconds", "0.01", "--no-cuda-graph")
    assert code == 6 and "CUDA graph off" in out and "GPU compute" in out and "undecided" in out
    assert "invalid: tiny engine int8, batch 1: enqueueing takes" in " ".join(out.split())


def test_an_engine_reports_its_tuned_and_its_largest_batch(bundles, monkeypatch, cnnx_command):
    imitation = ImitatedBindings("11.4.0.106")
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(imitation))
    usual, small = (cnnx.build(bundles[0], target="tensorrt", opt_batch=n).engines[0] for n in (None, 2))
    assert (usual.batch, small.batch) == ((1, 4, 4), (1, 2, 4)) and imitation.config.profiles[0].shapes[1][
        0
    ] == 2
    options = {"seconds": 0.01, "percentile": 50}
    [measured] = cnnx.bench(bundles[0], engine=small.identity, **options).measurements
    assert (measured.conditions.tuned_for, measured.conditions.largest) == (2, 4)
    [measured] = cnnx.bench(bundles[0], **options).measurements
    assert measured.subject.engine == usual.identity and measured.conditions.tuned_for == 4
    _, out, _ = cnnx_command("bench", bundles[0], "--batch", "1,2", "--seconds", "0.01")
    said = f"tiny engine fp16 is {usual.identity}, tuned for batch 4; memory is for its largest batch, 4."
    assert out.count(said) == 1
    code, _, said = cnnx_command("build", bundles[0], "--target", "tensorrt", "--opt-batch", "5")
    assert code == 2 and "invalid --opt-batch 5: the graph takes batches from 1 to 4" in " ".join(
        said.split()
    )


def test_engines_of_one_bundle_take_turns_and_int8_is_compared_with_its_fp16(
    bundles,
    monkeypatch,
    cnnx_command,
):
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings("11.4.0.106")))
    for bundle in bundles:
        usual, small = (cnnx.build(bundle, target="tensorrt", opt_batch=n).engines[0] for n in (None, 2))
    both = [usual.identity, small.identity]
    result = cnnx.bench(bundles, engine=both, seconds=0.01, percentile=50)
    assert [(one.subject.precision, one.subject.engine) for one in result.measurements] == [
        (precision, engine) for precision in ("fp16", "int8") for engine in both
    ]
    assert [advice["engine"] for advice in plain(result)["advice"]] == both
    shown = io.StringIO()
    draw(Console(file=shown, width=200), bench_blocks(result, verbose=False))
    for engine in (usual, small):
        assert f"│ engine int8 {engine.identity} " in shown.getvalue()
        said = f"tiny engine fp16 is {engine.identity}, tuned for batch {engine.batch[1]};"
        assert said in shown.getvalue()
        assert f"tiny {engine.identity}, batch 1: undecided whether INT8 is faster" in shown.getvalue()

    options = [option for name in both for option in ("--engine", name)]
    code, _, said = cnnx_command("bench", *bundles, *options, "--engine", "another")
    assert code == 2 and "no engine 'another'" in said
    shutil.rmtree(bundles[1] / "engines" / small.identity)  # as one for a DLA, which FP16 alone has
    code, out, _ = cnnx_command("bench", *bundles, *options, "--seconds", "0.01")
    assert code == 6 and out.count(f"{small.identity} ") and f"engine int8 {small.identity}" not in out
    shutil.rmtree(bundles[1] / "engines" / usual.identity)
    code, _, said = cnnx_command("bench", *bundles, *options)
    assert code == 2 and f"no engine '{usual.identity}'" in said and str(bundles[1]) in said


def test_int8_is_paired_only_with_the_fp16_that_was_built_in_the_same_way():
    @dataclasses.dataclass
    class One:
        subject: Subject

    def one(precision, engine):
        return One(Subject("net", "engine", f"{precision}{engine}", precision, "trt", "gpu", engine))

    def pairs(*found):
        beside = int8_with_fp16(found, lambda _: None)
        return [(i.subject.engine, f.subject.engine, told) for i, f, told in beside]

    fp16, int8 = (lambda engine: one("fp16", engine)), (lambda engine: one("int8", engine))
    assert pairs(fp16("a"), fp16("b"), int8("a"), int8("b")) == [("a", "a", "a"), ("b", "b", "b")]
    assert pairs(fp16("a"), int8("a"), int8("b")) == [("a", "a", "a")]
    assert pairs(fp16("a"), fp16("b"), int8("b")) == [("b", "b", "b")]
    assert pairs(fp16("a"), int8("b")) == [("b", "a", "")]  # one of each: what the user put side by side


def test_names_are_as_short_as_is_unambiguous():
    usual = Subject("net", "engine", "a" * 64, "int8", "trt", "gpu", "e")
    other = dataclasses.replace(usual, engine="f", digest="b" * 64)
    again = dataclasses.replace(usual, digest="c" * 64)
    graph = dataclasses.replace(usual, artefact="graph", engine="")
    assert names_of([usual, graph]) == {usual: "engine int8", graph: "graph int8"}
    assert names_of([usual, graph], network=True)[graph] == "net graph int8"
    assert names_of([usual, other]) == {usual: "engine int8 e", other: "engine int8 f"}
    assert names_of([usual, again])[again] == f"engine int8 {'c' * 12}"


def test_without_capture_no_cuda_graph_is_used_unless_requested(bundles, monkeypatch):
    imitation = ImitatedBindings("10.3.0")
    imitation.device.captures = False
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(imitation))
    cnnx.build(bundles[0], target="tensorrt")
    [measured] = cnnx.bench(bundles[0], seconds=0.01, percentile=50).measurements
    assert measured.conditions.cuda_graph is False and "without a CUDA graph" in measured.remark
    with pytest.raises(cnnx.CnnxError, match="a CUDA graph was requested"):
        cnnx.bench(bundles[0], seconds=0.01, percentile=50, cuda_graph=True)


def screen(result) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=200), energy_blocks(result))
    return out.getvalue()


def test_energy_of_every_bundle_and_batch_is_measured_in_turn(bundles, tmp_path):
    told = []
    power, options = rehearsal(tick_ms=100), {"target": "ort", "seconds": 0.01, "percentile": 50}
    result = cnnx.bench(bundles, batch=[1, 2, 8], power=power, listener=told.append, **options)
    asked = [(use.subject.precision, use.batch) for use in result.energy]
    assert asked == [("fp16", 1), ("fp16", 2), ("int8", 1), ("int8", 2)] and not result.energy_unmeasured
    spans = [(use.measured.idle_before.start_ns, use.measured.idle_after.end_ns) for use in result.energy]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
    # Each reading of the clock takes 100 ms at any batch, so two images share the energy of one.
    one, two, *_ = (use.total.gross_mj for use in result.energy)
    assert one / two == pytest.approx(2, rel=0.1)
    notes = [event.step for event in told if event.note]
    assert notes == [
        "Energy is measured after latency: 4 passes of 89 to 234 s each, one after another, 6 to 16 minutes "
        "in total, depending on warm-up and run time."
    ]
    assert "energy 2 of 4: fp16, batch 2" in [event.step for event in told]
    assert told.index(next(event for event in told if event.note)) == 0
    assert len(list(bundles[0].glob("runs/*-energy-*"))) == len(list(bundles[1].glob("runs/*-energy-*"))) == 2

    [ratio, other] = result.energy_ratios
    fp16, int8 = result.energy[0].total, result.energy[2].total
    assert (ratio.network, ratio.batch, other.batch) == ("tiny", 1, 2)
    assert ratio.gross.value == pytest.approx(int8.gross_mj / fp16.gross_mj)
    assert ratio.net.low == pytest.approx(int8.net.low / fp16.net.high)
    assert ratio.net.low <= ratio.net.value <= ratio.net.high == pytest.approx(int8.net.high / fp16.net.low)
    said = plain(result)
    assert [use["batch"] for use in said["energy"]] == [1, 2, 1, 2] and said["energy_unmeasured"] == []
    assert said["energy_ratios"][0]["gross"]["value"] == ratio.gross.value

    shown = screen(result)
    assert shown.count("graph fp16") == shown.count("graph int8") == 4  # two rows and two remarks each
    assert shown.count("module input") == 1 and "tiny, batch 2: INT8 uses" in shown
    cnnx.write_report(bundles, tmp_path / "r.json")
    rows = [row for row in json.loads((tmp_path / "r.json").read_text())["rows"] if row["kind"] == "energy"]
    assert [(row["precision"], row["batch"]) for row in rows] == asked


def test_a_pass_that_fails_is_a_row_and_the_others_are_kept(bundles, cnnx_command):
    options = {"target": "ort", "seconds": 0.01, "percentile": 50}
    power, listener = failing(lambda step: "int8" in step, rehearsal(tick_ms=100), DEAD)
    result = cnnx.bench(bundles, power=power, listener=listener, **options)
    [use], [row] = result.energy, result.energy_unmeasured
    assert (use.subject.precision, row.subject.precision, row.batch) == ("fp16", "int8", 1)
    assert len(result.measurements) == 2 and result.exit_code == 0 and result.energy_ratios == ()
    shown = screen(result)
    assert "Energy not measured" in shown and "sampler ended" in shown and "graph fp16" in shown
    assert plain(result)["energy_unmeasured"][0]["reason"].startswith("the power sampler ended")

    power, listener = failing(lambda step: step == "energy", rehearsal(tick_ms=100), DEAD)
    alone = cnnx.bench(bundles[0], power=power, listener=listener, **options)
    assert alone.measurements and alone.energy == () and alone.exit_code == 4
    assert "sampler ended" in screen(alone)


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_energy_is_measured_under_the_conditions_of_latency(bundles, monkeypatch, cuda_graph):
    imitation = ImitatedBindings("11.4.0.106")
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(imitation))
    cnnx.build(bundles[0], target="tensorrt")
    power = rehearsal(tick_ms=1000)
    [use] = cnnx.bench(bundles[0], seconds=0.01, percentile=50, cuda_graph=cuda_graph, power=power).energy
    assert use.cuda_graph is cuda_graph and use.as_dict()["cuda_graph"] is cuda_graph
    launches = imitation.device.launches
    assert launches > use.measured.load.calls if cuda_graph else launches == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--batch", "1,x"], "expected a list of sizes"),
        (["--batch", "16"], "batches from 1 to 4"),
        (["--percentile", "100"], "invalid --percentile 100"),
        (["--cuda-graph"], "CUDA graphs need a TensorRT engine"),
    ],
)
def test_invalid_options_are_refused(bundles, cnnx_command, arguments, word):
    code, _, said = cnnx_command("bench", bundles[0], "--target", "ort", "--seconds", "0.01", *arguments)
    assert code == 2 and word in " ".join(said.split())


def test_the_same_bundle_twice_is_refused(bundles):
    with pytest.raises(UsageError, match="twice"):
        cnnx.bench([bundles[0], bundles[0]])


def test_a_link_to_itself_is_not_a_bundle(bundles, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(BundleError, match="folder does not exist"):
        cnnx.bench([bundles[0], tmp_path / "loop"])


def test_inspect_predicts_memory(bundles, cnnx_command):
    code, out, _ = cnnx_command("inspect", bundles[0], "--json")
    predicted = json.loads(out)["result"]["predicted"]
    assert code == 0 and predicted["4"]["io_bytes"] == 4 * predicted["1"]["io_bytes"]
    # The convolution's output of 16 x 14 x 14 FP16 values, and its activation, both alive at once.
    assert predicted["1"]["scratch_bytes"] >= 2 * 2 * 16 * 14 * 14
    assert "memory at batch 4" in cnnx_command("inspect", bundles[0])[1]


@pytest.mark.parametrize("asked", ["50", "90", "95"])
def test_no_percentile_is_shown_twice_in_a_table(bundles, cnnx_command, asked):
    code, out, _ = cnnx_command("bench", bundles[0], "--seconds", "0.01", "--percentile", asked)
    heads = [cell.strip() for cell in next(line for line in out.splitlines() if "p50 ms" in line).split("┃")]
    assert code == 0 and f"p{asked} ms" in heads and len(heads[1:-1]) == len(set(heads[1:-1]))
