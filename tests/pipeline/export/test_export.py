import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.writing import new_bundle, seal
from cnnx.errors import BuildFailed, MissingExtra, UsageError
from cnnx.recipe import read_recipe
from cnnx.runtimes import get
from cnnx.stats import Verdict
from tests.doubles.sessions import FakeSession

pytest.importorskip("torch", reason="exports need PyTorch")


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    return cnnx.export("lenet5", precision="int8", out=tmp_path_factory.mktemp("out") / "lenet5-int8")


def step_times(result):
    return {step.step: step.reused for step in result.steps}


def test_lenet5_in_int8_passes_its_gate_on_held_out_digits(int8):
    validation = int8.validation
    assert validation.verdict is Verdict.PASSED and int8.exit_code == 0
    assert validation.images == 800 and validation.accuracy.original >= 0.97
    assert {gate.verdict for gate in validation.gates} == {Verdict.PASSED}
    assert validation.subject.artefact == "graph" and validation.subject.runtime.startswith("ort")
    manifest = int8.bundle.manifest
    assert manifest.images["calibration"].digest != manifest.images["validation"].digest


def test_inspect_shows_each_layers_precision_with_its_reason(int8):
    inspection = cnnx.inspect(int8.bundle.path)
    weighted = {layer.name: layer for layer in inspection.layers if layer.multiply_adds}
    assert set(weighted) == {"conv1", "conv2", "fc1", "fc2", "fc3"}
    assert {layer.data_type for layer in weighted.values()} == {"int8"}
    reasons = {layer["node"]: layer["reason"] for layer in inspection.bundle.manifest.layers}
    assert all(reasons[layer.name] for layer in inspection.layers)
    assert read_recipe("lenet5").precision.reason in reasons["conv1"]
    assert inspection.verdict.startswith("passed")


@pytest.mark.parametrize("layer", ["conv2", "fc2"])
def test_one_wrong_scale_in_one_layer_fails_the_gate(int8, tmp_path, layer):
    """One layer's input is given a range 16 times too small; everything else stays as it was."""
    model = onnx.load(int8.bundle.model)
    reader = next(node for node in model.graph.node if node.name == layer)
    dequantize = next(node for node in model.graph.node if reader.input[0] in node.output)
    quantize = next(node for node in model.graph.node if dequantize.input[0] in node.output)
    scales = {quantize.input[1], dequantize.input[1]}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            wrong = numpy_helper.to_array(tensor) / 16
            tensor.CopyFrom(numpy_helper.from_array(wrong.astype(wrong.dtype), tensor.name))
    with new_bundle(tmp_path / "wrong") as draft:
        for name in int8.bundle.manifest.files:
            shutil.copyfile(int8.bundle.path / name, draft / name)
        onnx.save(model, draft / "model.onnx")
        seal(draft, int8.bundle.manifest)
    result = cnnx.validate(tmp_path / "wrong")
    assert result.verdict is Verdict.FAILED and result.verdict.exit_code == 1


@pytest.mark.parametrize(("precision", "scales"), [("fp32", "fp16"), ("fp16", "fp16"), ("int8", "fp32")])
def test_every_precision_passes(tmp_path, precision, scales):
    result = cnnx.export("lenet5", precision=precision, scales=scales, out=tmp_path / "b")
    assert result.validation.verdict is Verdict.PASSED
    types = {layer.data_type for layer in cnnx.inspect(tmp_path / "b").layers if layer.multiply_adds}
    assert types == {precision}
    graph = onnx.load(result.bundle.model).graph
    assert {t.type.tensor_type.elem_type for t in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}


def test_the_rtx_build_confirms_the_types(int8, tmp_path):
    if reason := get("rtx").missing():
        pytest.skip(str(reason))
    bundle = tmp_path / "b"
    shutil.copytree(int8.bundle.path, bundle)
    result = cnnx.build(bundle, target="rtx", sm=[86, 89])
    assert [engine.target for engine in result.engines] == ["sm86", "sm89"]
    for engine in result.engines:
        assert engine.layer_types == dict.fromkeys(("conv1", "conv2", "fc1", "fc2", "fc3"), "int8")
        assert Bundle.open(bundle).engine_file(engine).stat().st_size > 10_000
    # Without a GPU the engine was built but not run, so the verdict is for the graph.
    if get("rtx").cannot_run():
        assert cnnx.validate(bundle).self_test.subject.artefact == "graph"


def test_a_batch_range_runs_at_every_size_in_it(tmp_path):
    result = cnnx.export("lenet5", precision="int8", batch=(1, 8), out=tmp_path / "b")
    assert result.validation.verdict is Verdict.PASSED
    assert result.bundle.manifest.inputs[0].shape[0] is None
    measured = cnnx.bench(tmp_path / "b", batch=8, seconds=0.01).measurements[0]
    assert measured.latency.batch == 8 and measured.latency.throughput > 0
    with pytest.raises(UsageError, match="1 to 8"):
        cnnx.bench(tmp_path / "b", batch=9)


def test_a_fixed_batch_is_calibrated_with_every_image(int8, tmp_path):
    result = cnnx.export("lenet5", precision="int8", batch=(6, 6), validation_images=60, out=tmp_path / "b")
    assert result.bundle.manifest.inputs[0].shape[0] == 6
    alone, together = (
        json.loads((b.path / "calibration.json").read_text()) for b in (int8.bundle, result.bundle)
    )
    assert together["images"] == alone["images"] == 256  # no multiple of 6
    assert together["maxima"].keys() == alone["maxima"].keys()
    # Validation took fewer images, the same ones first: calibration saw the same.
    assert together["maxima"] == pytest.approx(alone["maxima"], rel=1e-5)


def test_a_stopped_calibration_resumes(int8, tmp_path, monkeypatch, stop_at):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cnnx.pipeline.steps.observation._SAVE_SECONDS", 0)
    seen: list[int] = []
    step = "calibration images through the graph"

    with pytest.raises(KeyboardInterrupt):
        cnnx.export("lenet5", precision="int8", out=tmp_path / "b", listener=stop_at(step, 100, seen))
    assert seen == list(range(1, 101)) and not (tmp_path / "b").exists()
    seen.clear()
    result = cnnx.export("lenet5", precision="int8", out=tmp_path / "b", listener=stop_at(step, 0, seen))
    assert seen == list(range(100, 257))  # what the last save had not seen comes again
    found, whole = (b.path / "calibration.json" for b in (result.bundle, int8.bundle))
    assert found.read_bytes() == whole.read_bytes()
    assert not list((tmp_path / "cache" / "statistics").glob(".*partial*"))


def test_validate_and_bench_need_only_the_bundle_and_keep_records(int8):
    before = len(int8.bundle.records())
    validated = cnnx.validate(int8.bundle.path)
    assert validated.self_test.images == 200 and validated.verdict is Verdict.PASSED
    cnnx.bench(int8.bundle.path, seconds=0.01)
    kinds = [record.kind for record in int8.bundle.records()[before:]]
    assert kinds == ["selftest", "benchmark"]
    record = int8.bundle.records()[-1]
    assert len(record.result["latency"]["samples_ns"]) >= 662 and record.environment["cpu"]


def test_load_gives_a_session_that_classifies(int8):
    session = cnnx.load(int8.bundle.path)
    reference = int8.bundle.reference()
    images = (reference.crops[:16].astype(np.float32).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    logits = session.run(images)["logits"]
    assert (logits.argmax(axis=1) == reference.labels[:16]).mean() > 0.9
    session.close()


def test_standin_weights_are_never_judged(tmp_path):
    result = cnnx.export("lenet5", precision="int8", weights="standin", out=tmp_path / "b")
    assert result.validation.verdict is Verdict.NOT_JUDGED and result.exit_code == 0
    assert "stand-in" in result.bundle.manifest.weights["origin"] and "Stand-in" in result.notes[0]
    assert cnnx.validate(tmp_path / "b").verdict is Verdict.PASSED  # as the graph, whatever that is worth
    again = cnnx.validate(tmp_path / "b", validation_data="digits", validation_images=8).validation
    assert again.verdict.exit_code == 6 and "stand-in" in again.reasons[0]


def test_synthetic_images_cannot_judge_trained_weights(tmp_path):
    result = cnnx.export(
        "lenet5", precision="fp16", validation_data="deadleaves", validation_images=8, out=tmp_path / "b"
    )
    assert result.validation.verdict is Verdict.NOT_JUDGED and "synthetic" in result.validation.reasons[0]


def test_a_bundle_over_its_budget_fails(tmp_path):
    text = "\n".join(
        [
            'name = "tight"',
            'model = { definition = "lenet5", classes = 10 }',
            "input = { shape = [1, 32, 32] }",
            'preprocessing = { color = "gray", resize = 32, mean = [0.5], std = [0.5] }',
            'calibration = { data = "digits", images = 8 }',
            'validation = { data = "digits", images = 8 }',
            "gates = { graph_mib = 0.01 }",
        ]
    )
    (tmp_path / "tight.toml").write_text(text)
    result = cnnx.export(str(tmp_path / "tight.toml"), weights="standin", out=tmp_path / "b")
    size = result.validation.gates[-1]
    assert result.exit_code == 1 and result.validation.verdict is Verdict.FAILED
    assert (size.name, size.verdict, size.threshold, size.unit) == ("graph size", Verdict.FAILED, 0.01, "MiB")
    again = cnnx.export(str(tmp_path / "tight.toml"), weights="standin", out=tmp_path / "b")
    assert again.unchanged and again.validation.gates == result.validation.gates


def test_a_graph_that_differs_from_the_original_stops_the_export(tmp_path, int8, monkeypatch):
    """The exported graph is run against the original before anything is made from it."""
    from cnnx.pipeline.steps.original import TorchOriginal

    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    other = FakeSession(lambda images: np.eye(10, dtype=np.float32)[: len(images)])
    monkeypatch.setattr(TorchOriginal, "session", lambda _: other)
    with pytest.raises(BuildFailed, match="the original give different logits") as caught:
        cnnx.export("lenet5", precision="fp32", out=tmp_path / "b")
    assert caught.value.exit_code == 5 and not (tmp_path / "b").exists()


def test_a_named_gpu_needs_a_builder_and_reports_its_extra(monkeypatch, int8):
    from cnnx.runtimes.rtx import runtime as rtx

    lacking = MissingExtra("tensorrt_rtx_bindings", "rtx", purpose="building")
    monkeypatch.setattr(rtx.RtxRuntime, "missing", lambda _: lacking)
    with pytest.raises(MissingExtra, match="rtx") as caught:
        cnnx.build(int8.bundle.path, sm=[86])
    assert caught.value.exit_code == 4 and ".[rtx]" in caught.value.hint


def test_a_users_graph_is_exported(tmp_path):
    """LeNet-5 as a user's FP32 graph, with preprocessing that the channels suggest."""
    first = cnnx.export("lenet5", precision="fp32", out=tmp_path / "lenet5-fp32")
    shutil.copyfile(first.bundle.model, tmp_path / "Mine.onnx")
    result = cnnx.export(
        str(tmp_path / "Mine.onnx"),
        precision="int8",
        calibration_data="digits",
        calibration_images=32,
        validation_data="digits",
        validation_images=64,
        out=tmp_path / "b",
    )
    manifest = result.bundle.manifest
    assert manifest.recipe["name"] == "mine" and manifest.weights["kind"] == "file"
    assert result.validation.accuracy.original > 0.9
    assert any("Preprocessing is assumed" in note for note in result.notes)


def test_a_different_graph_of_the_same_name_is_not_reused(tmp_path):
    """Once, the version of onnx replaced the graph's hash in the cache key."""
    first = cnnx.export("lenet5", precision="fp32", out=tmp_path / "lenet5-fp32")
    model = onnx.load(first.bundle.model)
    images = {"validation_data": "digits", "validation_images": 8}
    for folder, factor in (("a", 1), ("b", 2)):
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc3.bias")
        values = numpy_helper.to_array(bias) + np.float32(factor)
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
        (tmp_path / folder).mkdir()
        onnx.save(model, tmp_path / folder / "net.onnx")
        net = str(tmp_path / folder / "net.onnx")
        result = cnnx.export(net, precision="fp32", out=tmp_path / folder / "out", **images)
        assert result.validation.logit_sqnr_db is None or result.validation.logit_sqnr_db > 100


def test_results_and_records_hold_no_path_of_this_machine(int8):
    manifest = (int8.bundle.path / "manifest.json").read_text()
    assert str(int8.bundle.path.parent) not in manifest
    assert dataclasses.is_dataclass(int8.bundle.manifest)
