import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph.passes.qdq import insert_qdq, quantize_weight, scales_from_amax
from cnnx.graph.policy.placement import plan_layers, tensors_to_calibrate
from cnnx.recipe import LayerOverride, PrecisionPolicy
from tests.inputs.graphs import GRAPHS, Sketch, images, maxima_of, ops, run

KINDS = {"fp16": np.float16, "fp32": np.float32}
KEEP_ALL = PrecisionPolicy(small_layers="int8", reason="test")


def quantized(model, *, policy=KEEP_ALL, scales="fp16"):
    maxima = maxima_of(model, images())
    plan = plan_layers(model, precision="int8", policy=policy, maxima=maxima, scales=scales)
    return insert_qdq(model, plan, ranges=maxima, scales=scales), plan, maxima


amounts = st.floats(0, 60000, allow_subnormal=False) | st.floats(1e-12, 1e-2)


@given(
    amax=hnp.arrays(np.float64, st.integers(1, 20), elements=amounts), kind=st.sampled_from(["fp16", "fp32"])
)
def test_scales_are_positive_representable_and_cover_their_range(amax, kind):
    scales = scales_from_amax(amax, scales=kind)
    assert (scales > 0).all() and np.isfinite(scales).all()
    np.testing.assert_array_equal(scales.astype(KINDS[kind]).astype(np.float32), scales)
    assert (scales.astype(np.float64) * 127 >= amax).all()
    # A unit in the last place above the exact quotient at most; FP16's floor is 2**-20.
    exact = amax[amax > 127 * 2.0**-14] / 127
    close = scales[amax > 127 * 2.0**-14]
    assert (close <= exact * (1 + 2 * np.finfo(KINDS[kind]).eps)).all()
    assert (scales[(amax > 0) & (amax < 1e-5)] == 2.0**-20).all() or kind == "fp32"


def test_a_scale_of_fp32_is_a_normal_number():
    assert scales_from_amax(np.array([0, 1e-42, 126 * 2.0**-126]), scales="fp32").tolist() == [
        1,
        *[2.0**-126] * 2,
    ]


@pytest.mark.parametrize("axis", [0, 1])
@given(data=st.data(), kind=st.sampled_from(["fp16", "fp32"]))
def test_weights_come_back_within_half_a_scale(axis, data, kind):
    shape = data.draw(st.sampled_from([(5, 3), (4, 2, 3, 3), (1, 1), (7, 9)]))
    values = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-300, 300, width=32)))
    values *= data.draw(st.sampled_from([1.0, 1e-3, 1e-7, 0.0]))
    integers, scale = quantize_weight(values, axis=axis, scales=kind)
    spread = scale.reshape([-1 if place == axis else 1 for place in range(len(shape))]).astype(np.float64)
    assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() <= 127
    assert (np.abs(integers * spread - values) <= spread / 2 * (1 + 1e-6)).all()


def test_slices_of_a_large_weight_are_quantized_as_the_whole():
    values = np.random.default_rng(0).standard_normal((2100, 4096)).astype(np.float32)
    for axis in (0, 1):
        integers, scale = quantize_weight(values, axis=axis, scales="fp16")
        spread = scale[:, None] if axis == 0 else scale
        np.testing.assert_array_equal(integers[::97], np.rint(values / spread)[::97])


@settings(max_examples=25)
@given(
    amax=st.floats(0.01, 100), x=hnp.arrays(np.float32, (1, 3, 12, 12), elements=st.floats(-1, 1, width=32))
)
def test_activations_come_back_within_half_a_scale(amax, x):
    model = GRAPHS["plain"]()
    ranges = {**maxima_of(model, images()), "input": amax}
    plan = plan_layers(model, precision="int8", policy=KEEP_ALL, maxima=ranges)
    graph = insert_qdq(model, plan, ranges=ranges, scales="fp16")
    graph.graph.output.append(
        helper.make_tensor_value_info("input.dequantized", TensorProto.FLOAT, ["batch", 3, 12, 12])
    )
    scale = float(scales_from_amax(np.array(amax), scales="fp16"))
    back = run(graph, x * np.float32(amax))["input.dequantized"]
    assert np.abs(back - x * np.float32(amax)).max() <= scale / 2 * (1 + 1e-5)


@pytest.mark.parametrize(("name", "scales"), [(n, s) for n in GRAPHS for s in KINDS])
def test_what_is_written_is_what_tensorrt_wants(name, scales):
    model = GRAPHS[name]()
    before = model.SerializeToString()
    graph, plan, _ = quantized(model, scales=scales)
    onnx.checker.check_model(graph, full_check=True)
    constants = {t.name: t for t in graph.graph.initializer}
    producers = {output: node for node in graph.graph.node for output in node.output}
    quantizers = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert {node.input[0] for node in quantizers} == set(tensors_to_calibrate(model, plan))
    assert len({node.input[0] for node in quantizers}) == len(quantizers) > 0
    for node in graph.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (numpy_helper.to_array(constants[tensor]) for tensor in node.input[1:])
            assert zero.dtype == np.int8 and not zero.any() and zero.shape == scale.shape
            assert (scale > 0).all() and (scale == scale.astype(KINDS[scales])).all()
    nodes = {node.name: node for node in graph.graph.node}
    for node in (nodes[layer.node] for layer in plan if layer.precision == "int8"):
        data, weight = producers[node.input[0]], producers[node.input[1]]
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert constants[weight.input[0]].data_type == TensorProto.INT8
        assert constants[node.input[2]].data_type == TensorProto.FLOAT  # TensorRT refuses INT32 biases
        assert f"{node.name}.weight" not in constants
    assert set(constants) <= {tensor for node in graph.graph.node for tensor in node.input}
    assert model.SerializeToString() == before


@pytest.mark.parametrize("scales", KINDS)
def test_int8_stays_near_the_original(scales):
    for name in ("plain", "residual"):
        model = GRAPHS[name]()
        graph, _, _ = quantized(model, scales=scales)
        before, after = run(model, images(16))["logits"], run(graph, images(16))["logits"]
        noise = np.square(after - before).mean() / np.square(before - before.mean()).mean()
        assert noise < 10**-2.5  # 25 dB: trained networks lie at 25 to 35


def test_weights_that_are_listed_as_inputs_leave_the_list_with_their_values():
    model = GRAPHS["plain"]()
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    graph, _, _ = quantized(model)
    assert [value.name for value in graph.graph.input] == ["input", "conv1.bias", "conv2.bias", "fc.bias"]
    assert run(graph, images())["logits"].shape == (4, 10)


def test_a_shared_tensor_has_one_pair_and_others_keep_the_original():
    model = GRAPHS["residual"]()
    policy = PrecisionPolicy(overrides=(LayerOverride("b.down", "fp16", "test"),))
    graph, _, _ = quantized(model, policy=policy)
    readers = {node.name: list(node.input) for node in graph.graph.node}
    assert readers["a.conv1"][0] == readers["a.add"][1] == "stem.relu.dequantized"
    assert readers["b.conv1"][0] == "a.relu2.dequantized" and readers["b.down"][0] == "a.relu2"
    assert "b.down.weight" in {t.name for t in graph.graph.initializer}


def test_nothing_to_quantize_leaves_the_graph_as_it_is():
    model = GRAPHS["residual"]()
    for precision in ("fp16", "fp32"):
        plan = plan_layers(model, precision=precision, policy=PrecisionPolicy(), maxima={})
        assert insert_qdq(model, plan, ranges={}, scales="fp16") == model


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_columns_are_the_channels_of_an_untransposed_matrix(op):
    s = Sketch()
    flat = s.node("Flatten", [s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 16)], "gap")], "flat")
    s.node(op, [flat, s.weight("fc.weight", 16, 5)], "logits")
    model = s.model(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5]))
    graph, _, _ = quantized(model)
    weight = next(node for node in graph.graph.node if node.output[0].startswith("fc.weight"))
    assert next(a.i for a in weight.attribute if a.name == "axis") == 1
    np.testing.assert_allclose(run(graph, images())["logits"], run(model, images())["logits"], atol=0.05)


def test_a_weight_that_two_layers_read_along_different_axes_has_the_scales_of_both():
    s = Sketch(seed=2)
    x = s.node("Flatten", [s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 16)], "gap")], "flat")
    spread = np.geomspace(1, 60, 16, dtype=np.float32)  # of rows and columns: one scale cannot serve both
    weight = s.constant("w", s.random.standard_normal((16, 16)).astype(np.float32) * spread * spread[:, None])
    s.node("Gemm", [x, weight], "logits", transB=1)
    s.node("MatMul", [x, weight], "columns")
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 16]) for n in ("logits", "columns")
    ]
    model = s.model(*outputs)
    graph, plan, _ = quantized(model)
    assert {layer.precision for layer in plan if layer.node in ("logits", "columns")} == {"int8"}
    weights = {node.name: node.input[1] for node in graph.graph.node if node.op_type in ("Gemm", "MatMul")}
    assert weights == {"logits": "w.dequantized", "columns": "w.dequantized.axis1"}
    before, after = run(model, images(16)), run(graph, images(16))
    for name in before:  # each class by itself
        noise = np.square(after[name] - before[name]).mean(axis=0) / np.square(before[name]).mean(axis=0)
        assert noise.max() < 0.03, name  # 0.3 where one of them is read with the other's scales


def test_kept_scales_are_rounded_after_the_division_and_leave_the_integers_alone():
    integers = np.arange(-126, 127)
    for shift in (-0.49, 0.49):
        weight = ((integers + shift) * 0.01).astype(np.float32)[None, :]
        steps = [float(np.abs(weight).max() / 0.01)]
        found, scale = quantize_weight(weight, axis=0, scales="fp16", steps=steps)
        np.testing.assert_array_equal(found[0], integers)
        assert scale == np.float16(scale) and 0.01 <= scale[0] < 0.01 * (1 + 2**-9)
    tiny = (integers * 2.0**-22).astype(np.float32)[None, :]
    found, scale = quantize_weight(tiny, axis=0, scales="fp16", steps=[126.0])
    assert scale[0] == 2.0**-20 and np.array_equal(found[0], np.rint(integers / 4)), "too small for FP16"


def test_dead_channels_have_a_positive_scale_and_stay_zero():
    integers, scale = quantize_weight(np.zeros((3, 2), np.float32), axis=0, scales="fp16")
    assert (scale > 0).all() and not integers.any()


@pytest.mark.parametrize("amax", [None, 0.0, float("nan"), float("inf"), 1e30])
def test_a_range_that_cannot_be_scaled_is_refused_with_its_tensor(amax):
    model = GRAPHS["plain"]()
    ranges = maxima_of(model, images())
    plan = plan_layers(model, precision="int8", policy=KEEP_ALL, maxima=ranges)
    del ranges["pool1"]
    with pytest.raises(GraphError, match="must be positive") as refusal:
        insert_qdq(model, plan, ranges=ranges if amax is None else {**ranges, "pool1": amax}, scales="fp16")
    assert refusal.value.where == "tensor pool1"


def test_a_quantized_graph_is_not_quantized_again():
    graph, plan, maxima = quantized(GRAPHS["plain"]())
    with pytest.raises(GraphError, match="quantized already"):
        insert_qdq(graph, plan, ranges=maxima, scales="fp16")
    assert ops(graph).count("QuantizeLinear") == 3
