"""TensorRT on a GPU: builds here, runs here, agrees with the ONNX reference, and says where the time went.

The shared conformance tests run there too (tests/runtimes/test_conformance.py); here is what only real
engines have.
"""

from __future__ import annotations

import contextlib
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cnnx import runtimes
from cnnx.errors import BundleError
from cnnx.runtimes import BuildOptions, BuildRequest, RunOptions
from cnnx.runtimes.trt import runtime as trt

TRT = runtimes.get("tensorrt")
REASON = TRT.cannot_run()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(params=["fp16", "int8"])
def made(request, tmp_path):
    """Two convolutions with a range of batches, in FP16 or with Q/DQ around it; graph, engine and request."""
    kind, rng = request.param, np.random.default_rng(0)
    weights, nodes = [], [helper.make_node("Cast", ["input"], ["x0"], name="cast", to=TensorProto.FLOAT16)]

    def constant(name, value):
        weights.append(numpy_helper.from_array(value, name))
        return name

    for index, channels in enumerate((16, 32)):
        weight = rng.standard_normal((32, channels, 3, 3)) / np.sqrt(9 * channels)
        x, w = f"x{index}", constant(f"w{index}", weight.astype(np.float16))
        if kind == "int8":
            scale, zero = constant(f"s{index}", np.float16(0.04)), constant(f"z{index}", np.int8(0))
            steps = np.clip(np.rint(weight / 0.01), -127, 127).astype(np.int8)
            w8, ws = constant(f"w8{index}", steps), constant(f"ws{index}", np.full(32, 0.01, np.float16))
            wz = constant(f"wz{index}", np.zeros(32, np.int8))
            nodes += [
                helper.make_node("QuantizeLinear", [x, scale, zero], [f"q{index}"], name=f"q{index}"),
                helper.make_node(
                    "DequantizeLinear", [f"q{index}", scale, zero], [f"d{index}"], name=f"d{index}"
                ),
                helper.make_node("DequantizeLinear", [w8, ws, wz], [f"dw{index}"], name=f"dw{index}", axis=0),
            ]
            x, w = f"d{index}", f"dw{index}"
        nodes += [
            helper.make_node("Conv", [x, w], [f"c{index}"], name=f"conv{index}", pads=[1] * 4),
            helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"], name=f"relu{index}"),
        ]
    nodes.append(helper.make_node("Cast", ["x2"], ["features"], name="out", to=TensorProto.FLOAT))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 32, 32])
        for name, channels in (("input", 16), ("features", 32))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    options = BuildOptions(workspace_bytes=1 << 28, timing_cache_folder=str(tmp_path / "caches"))
    asked = BuildRequest(kind, dict.fromkeys(("conv0", "conv1"), kind), batch=(1, 4, 8), options=options)
    (built,) = TRT.build(tmp_path / "model.onnx", asked)
    (tmp_path / built.file_name).write_bytes(built.plan)
    return tmp_path / "model.onnx", tmp_path / built.file_name, asked, built


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_siblings_run_at_the_same_time(made, cuda_graph):
    images = np.random.default_rng(1).standard_normal((8, 16, 32, 32)).astype(np.float32)
    with contextlib.closing(TRT.open(made[1], RunOptions(cuda_graph=cuda_graph))) as session:
        expected = session.run(images)["features"]
        siblings = [session.sibling() for _ in range(4)]
        for each in siblings:
            each.timed_run(images)  # captures the graph
        with ThreadPoolExecutor(len(siblings)) as pool:
            runs = [pool.submit(lambda one=one: [one.run(images) for _ in range(50)]) for one in siblings]
            for found in (each for run in runs for each in run.result()):
                np.testing.assert_array_equal(found["features"], expected)
        for each in siblings:
            each.close()


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_any_number_of_images_agrees_with_the_reference(made, cuda_graph):
    graph, engine, _, built = made
    assert set(built.layer_types.values()) == {built.layer_types["conv0"]}
    images = np.random.default_rng(1).standard_normal((11, 16, 32, 32)).astype(np.float32)
    expected = ReferenceEvaluator(onnx.load(graph)).run(None, {"input": images})[0]
    session = TRT.open(engine, RunOptions(cuda_graph=cuda_graph))
    try:
        for count in (8, 2, 11, 8):
            found = session.run(images[:count])["features"]
            # A rounding that falls the other way is one step of INT8, 0.04, times a few weights.
            np.testing.assert_allclose(found, expected[:count], rtol=5e-2, atol=5e-2)
    finally:
        session.close()


def test_the_times_of_a_run_are_sound(made):
    _, engine, _, _ = made
    images = np.zeros((8, 16, 32, 32), np.float32)
    session = TRT.open(engine, RunOptions(cuda_graph=True))
    try:
        times = [session.timed_run(images) for _ in range(50)][-1]
    finally:
        session.close()
    for part in (times.enqueue_ns, times.h2d_ns, times.compute_ns, times.d2h_ns):
        assert 0 < part < 100_000_000


def test_a_second_build_goes_on_from_the_timing_cache(made):
    graph, _, asked, built = made
    (again,) = TRT.build(graph, asked)
    assert built.timing_cache and again.remarks == built.remarks == ()


def test_a_damaged_engine_is_refused(made):
    engine = made[1]
    engine.write_bytes(engine.read_bytes()[:1000])
    with pytest.raises(BundleError, match="does not accept the engine"):
        TRT.open(engine)


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is None, reason="pycuda is not installed")
def test_pycuda_gives_the_same(made):
    _, engine, _, _ = made
    images = np.random.default_rng(1).standard_normal((3, 16, 32, 32)).astype(np.float32)
    outcomes = []
    for by in ("cudart", "pycuda"):
        session = trt.TrtRuntime(trt.InstalledBindings(by)).open(engine)
        outcomes.append(session.run(images)["features"])
        session.close()
    np.testing.assert_array_equal(*outcomes)
