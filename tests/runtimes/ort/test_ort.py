from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

import cnnx
from cnnx import runtimes
from cnnx.device import Device
from cnnx.errors import EnvironmentLacks, GraphError, MissingExtra, UsageError
from cnnx.machine.environment import Gpu, usable_cores
from cnnx.runtimes import BuildRequest, RunOptions
from cnnx.runtimes.ort.profile import read_profile
from cnnx.runtimes.ort.runtime import OrtRuntime, OrtSession

onnxruntime = pytest.importorskip("onnxruntime")
ORT = runtimes.get("ort")


def one_node(path, op, *, dtype=TensorProto.FLOAT, domain="", inputs=("x",), **attributes):
    values = [helper.make_tensor_value_info(name, dtype, [1, 3, 4, 4]) for name in inputs]
    out = helper.make_tensor_value_info("y", dtype, [1, 3, 4, 4])
    node = helper.make_node(op, list(inputs), ["y"], name="culprit", domain=domain, **attributes)
    opsets = [helper.make_opsetid("", 19)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", values, [out]), opset_imports=opsets, ir_version=10),
        path,
    )
    return path


@pytest.mark.parametrize("precision, tolerance", [("int8-fp32", 1e-5), ("int8", 2e-2), ("fp16", 2e-2)])
def test_qdq_runs_exactly_as_in_the_graph(net, precision, tolerance):
    """With ORT's defaults and FP32 scales, errors reach 6e-3 in some of these images. FP16 needs a looser
    tolerance: ORT computes it in FP32 and the reference in FP16, so quantized values may differ by a step."""
    images = np.random.default_rng(1).standard_normal((40, 3, 8, 8)).astype(np.float32)
    path = net(precision)
    reference = ReferenceEvaluator(onnx.load(path))
    expected = np.concatenate([reference.run(None, {"input": image[None]})[0] for image in images])
    session = ORT.open(path)
    found = session.run(images)["logits"]
    session.close()
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_outputs_other_than_the_logits_are_returned_unchanged(net, images, tmp_path):
    """Calibration needs this: a scalar maximum, and FP16 tensors widened to FP32."""
    model = onnx.load(net("fp16", batch="N"))
    model.graph.node.append(helper.make_node("ReduceMax", ["relu1_y"], ["maximum"], name="max", keepdims=0))
    for name in ("relu1_y", "maximum"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, None))
    onnx.save(model, tmp_path / "observed.onnx")
    session = ORT.open(tmp_path / "observed.onnx")
    assert session.output_names == ("logits", "relu1_y", "maximum")
    found = session.run(images)
    assert found["relu1_y"].shape == (5, 16, 8, 8)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    assert found["maximum"] == found["relu1_y"].max()
    one = session.run(images[:1])
    assert one["maximum"] == one["relu1_y"].max() and len(one["logits"]) == 1


def test_an_output_without_batch_cannot_be_joined(net, images, tmp_path):
    model = onnx.load(net("fp32", batch=2))
    model.graph.node.append(helper.make_node("ReduceMax", ["relu1_y"], ["maximum"], name="max", keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("maximum", TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "observed.onnx")
    session = ORT.open(tmp_path / "observed.onnx")
    assert session.run(images[:2])["maximum"].shape == ()
    for count in (1, 4):
        with pytest.raises(UsageError, match="'maximum'"):
            session.run(images[:count])


def test_a_float16_input_is_given_float16(tmp_path):
    session = ORT.open(one_node(tmp_path / "half.onnx", "Relu", dtype=TensorProto.FLOAT16))
    ones = np.ones((2, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(session.run(ones)["y"], ones)


class Cuda:
    """Imitates onnxruntime-gpu as documented: `get_available_providers` lists the providers in the wheel, and
    a session whose CUDA provider does not load runs without it (CUDA Execution Provider, "Build": an
    available provider need not be usable)."""

    __version__ = "1.24.0"
    SessionOptions = staticmethod(lambda: onnxruntime.SessionOptions())

    def __init__(self, *, loads: bool) -> None:
        self.loads, self.asked, self.preloaded = loads, [], False

    def get_available_providers(self):
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self):
        self.preloaded = True
        sys.stdout.write("Failed to load libcudnn.so.9")  # as its own does

    def InferenceSession(self, file, options, *, providers):  # noqa: N802
        self.asked = providers
        sys.stdout.write("EP Error ... Falling back to ['CPUExecutionProvider'] and retrying.")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        used = ["CUDAExecutionProvider"] * self.loads + ["CPUExecutionProvider"]
        return SimpleNamespace(
            run=session.run,
            get_inputs=session.get_inputs,
            get_outputs=session.get_outputs,
            get_providers=lambda: used,
        )


def test_a_visible_gpu_is_used_without_tf32_and_named(net, images, monkeypatch, capsys):
    cuda = Cuda(loads=True)
    runtime = OrtRuntime(lambda: cuda, lambda: Gpu("A GPU"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    session = runtime.open(net("fp32", batch="N"))
    assert session.device == runtime.device() == Device("gpu", "A GPU")
    (name, options), fallback = cuda.asked
    assert (name, options["use_tf32"], fallback) == ("CUDAExecutionProvider", 0, "CPUExecutionProvider")
    assert cuda.preloaded and session.run(images)["logits"].shape == (5, 10)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    cuda.preloaded = False
    assert runtime.open(net("fp32")).device.kind == "cpu"
    assert cuda.asked == ["CPUExecutionProvider"] and not cuda.preloaded
    assert capsys.readouterr().out == ""  # `--json` prints one object there


def test_an_onnx_runtime_without_cuda_does_not_use_a_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    plain = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    assert OrtRuntime(lambda: plain, lambda: Gpu("A GPU")).device().kind == "cpu"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert OrtRuntime(pytest.fail, lambda: Gpu("A GPU")).device().kind == "cpu"


def test_without_onnx_runtime_nothing_runs_and_the_extra_is_named(net, images, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    runtime = OrtRuntime(pytest.fail)
    for act in (lambda: runtime.open(net()), lambda: runtime.layer_times(net(), images)):
        with pytest.raises(MissingExtra, match="onnxruntime"):
            act()


def test_a_gpu_that_onnx_runtime_cannot_use_is_an_error(net, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(EnvironmentLacks, match="does not load") as caught:
        OrtRuntime(lambda: Cuda(loads=False), lambda: Gpu("A GPU")).open(net("fp32"))
    assert "CUDA_VISIBLE_DEVICES=" in caught.value.hint


def future(path):
    model = onnx.load(one_node(path, "Relu"))
    model.ir_version = 99
    onnx.save(model, path)


BAD = {
    "IR version": (future, "rejects the graph: Unsupported model IR version: 99"),
    "text": (lambda path: path.write_text("hello"), r"Protobuf parsing failed\n"),
    "nothing": (lambda path: path.write_bytes(b""), "No graph was found"),
    "absent": (lambda path: None, "no such file"),
    "operator": (lambda path: one_node(path, "Nope"), "culprit"),
    "domain": (lambda path: one_node(path, "Thing", domain="custom"), "custom:Thing"),
    "bfloat16": (lambda path: one_node(path, "Relu", dtype=TensorProto.BFLOAT16), "implementation for Relu"),
    "two inputs": (lambda path: one_node(path, "Add", inputs=("a", "b")), "a: tensor"),
    "integers": (lambda path: one_node(path, "Abs", dtype=TensorProto.INT64), "int64"),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_errors_are_one_clean_sentence(tmp_path, capfd, make, words):
    make(tmp_path / "bad.onnx")
    with pytest.raises(GraphError, match=words) as caught:
        ORT.open(tmp_path / "bad.onnx")
    assert caught.value.where == str(tmp_path / "bad.onnx")
    assert "ONNXRuntimeError" not in caught.value.what
    assert "onnxruntime_src" not in caught.value.what
    assert "\n" not in caught.value.what
    assert capfd.readouterr() == ("", "")


def test_a_failure_while_running_is_named(tmp_path, capfd):
    path = one_node(tmp_path / "expand.onnx", "Relu")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "C"
    model.graph.node.append(helper.make_node("Add", ["y", "bias"], ["z"], name="culprit2"))
    model.graph.initializer.append(helper.make_tensor("bias", TensorProto.FLOAT, [1, 3, 1, 1], [0.0] * 3))
    model.graph.output[0].name = "z"
    onnx.save(model, path)
    with pytest.raises(GraphError, match="culprit2") as caught:
        ORT.open(path).run(np.ones((1, 2, 4, 4), np.float32))
    assert "onnxruntime_src" not in caught.value.what
    assert capfd.readouterr() == ("", "")


def events(*found):
    keys = ("cat", "name", "dur")
    return [{**dict(zip(keys, each, strict=True)), "args": {"op_name": "Conv"}} for each in found]


def test_on_cuda_a_layer_takes_the_time_of_its_kernels_not_of_their_launch(tmp_path):
    """ "Performance numbers from the device will then be attached to those from the host" (its docs)."""
    one = [("Node", "conv_kernel_time", 9), ("Kernel", "pad", 20), ("Kernel", "gemm", 300)]
    on_cpu = [("Node", "gather_kernel_time", 7)]
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(events(*one, *on_cpu, *one, *on_cpu)))
    times = {layer.name: layer.median_ns for layer in read_profile(file, 2, on_gpu=True)}
    assert times == {"conv": 320_000, "gather": 7_000}
    file.write_text(json.dumps(events(("Kernel", "stray", 5), *one, *one[:1], *one[:2])))
    [conv] = read_profile(file, 2, on_gpu=True)
    assert conv.median_ns == 10_000, "of 0 and 20, as kernels are timed at all"
    assert read_profile(file, 3)[0].median_ns == 20_000
    file.write_text(json.dumps(events(*one[:1], *on_cpu)))
    assert read_profile(file, 2)[0].median_ns == 9_000
    with pytest.raises(EnvironmentLacks, match="no times of CUDA kernels"):
        read_profile(file, 2, on_gpu=True)  # as the wheels of PyPI


def test_what_only_engines_have_is_refused(net, images):
    ORT.check_capabilities(())
    with pytest.raises(UsageError, match="--sm is a GPU to build for"):
        ORT.check_capabilities((86,))
    graph = RunOptions(cuda_graph=True)
    for act in (lambda: ORT.open(net(), graph), lambda: ORT.layer_times(net(), images, options=graph)):
        with pytest.raises(UsageError, match="CUDA graphs need a TensorRT engine"):
            act()


def test_a_graph_runs_with_the_number_of_threads_that_is_asked_for(net):
    threads = [
        ORT.open(net(), RunOptions(threads=asked))._session.get_session_options().intra_op_num_threads
        for asked in (1, 3, None)
    ]
    assert threads == [1, 3, usable_cores()]


def test_a_session_that_is_closed_runs_nothing(net, images, tmp_path):
    profiled = OrtSession(net(batch="N"), onnxruntime, device=ORT.device(), profile=tmp_path / "p")
    profiled.run(images)
    assert profiled.end_profiling().is_file()
    session = ORT.open(net(batch="N"))
    session.close()
    for closed in (profiled, session):
        with pytest.raises(UsageError, match="the session is closed"):
            closed.run(images)


def test_it_builds_nothing(net):
    with pytest.raises(UsageError, match="does not build engines"):
        ORT.build(net(), BuildRequest("fp32", {}))


@pytest.mark.parametrize("program", ["cnnx", "package"])
def test_onnx_runtime_keeps_no_record_of_what_it_runs(tiny_bundle, tmp_path, program):
    """From 1.29, it would write an identifier and a database of events to the home folder, and send them."""
    image = tmp_path / "image.png"
    Image.new("L", (32, 32)).save(image)
    command = [sys.executable, "-m", "cnnx", "classify", tiny_bundle, image]
    if program == "package":
        folder = cnnx.write_package(tiny_bundle, consumer="python", out=tmp_path / "package").folder
        command = [sys.executable, folder / "classify.py", image, "--runtime", "onnxruntime"]
    (tmp_path / "home").mkdir()
    # It keeps none in CI, which it knows by such variables.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "CNNX_CACHE")}
    subprocess.run(command, env={**kept, "HOME": str(tmp_path / "home")}, check=True, capture_output=True)
    assert list((tmp_path / "home").rglob("*")) == []
