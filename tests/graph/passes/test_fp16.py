import ctypes
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph.passes.fp16 import type_fp16
from cnnx.graph.passes.qdq import insert_qdq
from cnnx.graph.policy.placement import plan_layers
from cnnx.recipe import LayerOverride, PrecisionPolicy
from tests.inputs.graphs import GRAPHS, images, maxima_of, ops, run

POLICY = PrecisionPolicy(small_layers="int8", reason="test")


def typed(model, *, precision, policy=POLICY):
    maxima = maxima_of(model, images())
    plan = plan_layers(model, precision=precision, policy=policy, maxima=maxima)
    return type_fp16(insert_qdq(model, plan, ranges=maxima, scales="fp16"), plan)


def types(model):
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {t.name: t.data_type for t in graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    return {**found, **{v.name: v.type.tensor_type.elem_type for v in values}}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_typed_graph_is_valid_and_computes_nearly_the_same(name, precision):
    model = GRAPHS[name]()
    before = model.SerializeToString()
    graph = typed(model, precision=precision)
    onnx.checker.check_model(graph, full_check=True)
    kinds = types(graph)
    assert kinds["input"] == kinds["logits"] == TensorProto.FLOAT
    assert model.SerializeToString() == before
    limit = 5e-3 if precision == "fp16" else 0.1
    np.testing.assert_allclose(run(graph, images())["logits"], run(model, images())["logits"], atol=limit)


def test_islands_are_fp32_and_the_rest_fp16():
    graph = typed(GRAPHS["branching"](), precision="fp16")
    kinds = types(graph)
    wide = {node.name for node in graph.graph.node if kinds[node.output[0]] == TensorProto.FLOAT}
    assert wide == {"lrn", "softmax", "stem.relu.fp32", "mix.fp32", "logits.fp32"}
    # lrn feeds two layers, and is cast once.
    assert [n.name for n in graph.graph.node if n.op_type == "Cast" and n.input[0] == "lrn"] == ["lrn.fp16"]
    assert all(kinds[name] == TensorProto.FLOAT16 for name in kinds if name.endswith((".weight", ".bias")))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_logits_that_a_softmax_reads_are_an_output_too(precision):
    model = GRAPHS["residual"]()
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1))
    model.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None))
    model.graph.output[-1].CopyFrom(model.graph.output[0])
    model.graph.output[-1].name = "probabilities"
    graph = typed(model, precision=precision)
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)  # ONNX Runtime refuses equal names
    found = run(graph, images())
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-3)
    np.testing.assert_allclose(found["logits"], run(model, images())["logits"], atol=0.1)


def test_a_plan_of_fp32_changes_nothing():
    model = GRAPHS["residual"]()
    plan = plan_layers(model, precision="fp32", policy=POLICY, maxima={})
    assert type_fp16(model, plan) == model


def test_the_input_goes_into_int8_without_a_cast():
    graph = typed(GRAPHS["residual"](), precision="int8")
    kinds, nodes = types(graph), {node.name: node for node in graph.graph.node}
    first = nodes["input.quantized"]
    assert first.input[0] == "input" and kinds[first.input[1]] == TensorProto.FLOAT
    assert ops(graph).count("Cast") == 1  # the logits'
    for node in graph.graph.node:
        if node.op_type == "DequantizeLinear" or (node.op_type == "QuantizeLinear" and node is not first):
            assert kinds[node.input[1]] == TensorProto.FLOAT16, node.name
    assert {kinds[nodes[name].output[0]] for name in ("stem", "a.add", "gap")} == {TensorProto.FLOAT16}


def test_an_int8_island_between_fp32_layers_keeps_its_types():
    policy = PrecisionPolicy(
        overrides=(LayerOverride("relu2", "fp32", "test"), LayerOverride("gap", "fp32", "test"))
    )
    graph = typed(GRAPHS["plain"](), precision="int8", policy=policy)
    onnx.checker.check_model(graph, full_check=True)
    kinds = types(graph)
    assert (kinds["conv2"], kinds["relu2"], kinds["gap"]) == (
        TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT,
    )  # fmt: skip


def test_integers_and_comparisons_are_left_alone():
    model = GRAPHS["plain"]()
    del model.graph.node[-2:]
    more = [
        helper.make_node("Shape", ["gap"], ["shape"], name="shape", end=1),
        helper.make_node("Concat", ["shape", "rest"], ["target"], name="target", axis=0),
        helper.make_node("Reshape", ["gap", "target"], ["flat"], name="flat"),
        helper.make_node("Greater", ["flat", "limit"], ["above"], name="above"),
        helper.make_node("Cast", ["above"], ["mask"], name="mask", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["flat", "mask"], ["masked"], name="masked"),
        helper.make_node("Gemm", ["masked", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1),
    ]
    model.graph.node.extend(more)
    model.graph.initializer.append(numpy_helper.from_array(np.array([32]), "rest"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.25), "limit"))
    graph = typed(model, precision="fp16")
    onnx.checker.check_model(graph, full_check=True)
    np.testing.assert_allclose(run(graph, images())["logits"], run(model, images())["logits"], atol=5e-3)


def test_a_dequantize_is_fp16_unless_all_its_readers_are_fp32():
    model = GRAPHS["residual"]()
    maxima = maxima_of(model, images())
    plan = plan_layers(model, precision="int8", policy=POLICY, maxima=maxima)
    quantized = insert_qdq(model, plan, ranges=maxima, scales="fp16")
    for islands, kind in (({"a.add"}, TensorProto.FLOAT16), ({"a.add", "a.conv1"}, TensorProto.FLOAT)):
        mixed = [replace(each, precision="fp32") if each.node in islands else each for each in plan]
        graph = type_fp16(quantized, tuple(mixed))
        onnx.checker.check_model(graph, full_check=True)
        kinds = types(graph)
        assert kinds["stem.relu.dequantized"] == kind
        assert kinds["a.add"] == TensorProto.FLOAT


@pytest.mark.parametrize("value", [65505, 1e6, -1e6, np.inf, np.nan])
def test_a_constant_beyond_fp16_is_refused_with_its_node(value):
    model = GRAPHS["plain"]()
    bias = numpy_helper.to_array(model.graph.initializer[1]).copy()
    bias[0] = value
    model.graph.initializer[1].raw_data = bias.tobytes()
    policy = PrecisionPolicy(overrides=(LayerOverride("conv1", "fp16", "against better advice"),))
    plan = plan_layers(model, precision="fp16", policy=policy, maxima={})
    with pytest.raises(GraphError, match="largest FP16 value is 65504") as refusal:
        type_fp16(model, plan)
    assert refusal.value.where == "node conv1"


def test_a_plan_for_another_graph_is_refused():
    plan = plan_layers(GRAPHS["plain"](), precision="fp16", policy=POLICY, maxima={})
    with pytest.raises(GraphError, match="not in the plan"):
        type_fp16(GRAPHS["residual"](), plan)


@pytest.fixture(scope="module")
def rtx():
    """TensorRT for RTX: parses and builds where there is no GPU."""
    found = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if found is None or not found.submodule_search_locations:
        pytest.skip("TensorRT for RTX is not installed")
    folder = Path(found.submodule_search_locations[0])
    for pattern in ("libcudart.so.*", "libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*"):
        ctypes.CDLL(str(next(folder.glob(pattern))), mode=ctypes.RTLD_GLOBAL)
    return pytest.importorskip("tensorrt_rtx_bindings")


def build(trt, model):
    """Size of the engine for compute capability 8.6, and what the parser or builder said."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        return 0, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    shape = network.get_input(0).shape[1:]
    profile.set_shape("input", (1, *shape), (4, *shape), (8, *shape))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return (plan.nbytes, []) if plan is not None else (0, ["the builder gave nothing"])


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rtx_parses_and_builds(rtx, name, precision):
    size, errors = build(rtx, typed(GRAPHS[name](), precision=precision))
    assert size > 0, errors


def test_rtx_takes_dead_and_nearly_dead_channels(rtx):
    model = GRAPHS["plain"]()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[0], values[1] = 0, values[1] * 1e-9
    model.graph.initializer[0].raw_data = values.tobytes()
    size, errors = build(rtx, typed(model, precision="int8"))
    assert size > 0, errors
