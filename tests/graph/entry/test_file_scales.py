"""Files that carry Q/DQ: removed on entry, and inserted again with the same integers and scales."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph.entry import read_network, unquantized
from cnnx.graph.passes.qdq import insert_qdq
from cnnx.graph.policy.placement import plan_layers
from cnnx.graph.simplify import simplify
from cnnx.recipe import PrecisionPolicy
from tests.inputs.graphs import GRAPHS, Sketch, images, maxima_of, ops, plain, residual, run
from tests.inputs.quantized import grids, pair, shortcut_scales, with_qdq

KEEP_ALL = PrecisionPolicy(small_layers="int8", reason="all layers of a small graph")


def read(model, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return read_network(path)


def again(network, *, scales="fp32"):
    """The network in INT8 with the scales of its file, and its plan."""
    simplify(network.model)
    arguments = {"precision": "int8", "policy": KEEP_ALL, "maxima": None, "scales": scales}
    plan = plan_layers(network.model, of_file=network.scales, **arguments)
    ranges = network.scales.ranges(network.model)
    made = insert_qdq(network.model, plan, ranges=ranges, scales=scales, steps=network.scales.weights)
    return made, {layer.node: layer for layer in plan}


def assert_same_grids(expected, found, *, rtol=0.0):
    assert expected.keys() == found.keys() and expected
    for layer, grid in expected.items():
        assert np.array_equal(grid.integers, found[layer].integers), layer
        np.testing.assert_allclose(found[layer].scales, grid.scales, rtol=rtol, atol=0)
        np.testing.assert_allclose(found[layer].data, grid.data, rtol=rtol, atol=0)


def apart(model, other, x):
    before, after = (run(each, x)["logits"] for each in (model, other))
    return np.abs(before - after).max() / np.abs(before).max()


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(GRAPHS)),
    seed=st.integers(0, 99),
    factor=st.floats(0.1, 3),
    scales=st.sampled_from(["fp16", "fp32"]),
)
def test_what_cnnx_inserts_survives_removal(tmp_path_factory, name, seed, factor, scales):
    """With FP16 scales, too, although these are rounded."""
    model = GRAPHS[name](seed=seed)
    maxima = {tensor: factor * found for tensor, found in maxima_of(model, images()).items()}
    plan = plan_layers(model, precision="int8", policy=KEEP_ALL, maxima=maxima, scales=scales)
    quantized = insert_qdq(model, plan, ranges=maxima, scales=scales)
    network = read(quantized, tmp_path_factory.mktemp("round"))
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(ops(network.model)) and not network.scales.notes
    found, _ = again(network, scales=scales)
    assert_same_grids(grids(quantized), grids(found))
    assert shortcut_scales(found) == shortcut_scales(quantized)
    assert apart(quantized, found, images()) < 1e-5


@pytest.mark.parametrize("graph", [plain, residual])
@pytest.mark.parametrize("opset", [13, 19, 21, 23, 25])
@pytest.mark.parametrize("stored", [False, True], ids=["float", "stored"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_scales_and_integers_of_training_are_kept(tmp_path, graph, opset, stored, per_channel):
    model = graph()
    options = {"stored": stored, "per_channel": per_channel}
    trained = with_qdq(model, maxima_of(model, images()), opset=opset, **options)
    network = read(trained, tmp_path)
    expected = run(model, images())["logits"]
    if not stored:  # the network without Q/DQ is the one before these were added
        np.testing.assert_allclose(run(network.model, images())["logits"], expected, rtol=1e-3, atol=1e-3)
    found, plan = again(network)
    assert_same_grids(grids(trained), grids(found))
    assert {plan[name].precision for name in grids(trained)} == {"int8"}
    assert apart(trained, found, images()) < (0.02 if graph is residual else 1e-5)


@pytest.mark.parametrize("form", ["initializers", "constant nodes", "listed inputs"])
def test_a_file_without_its_qdq_is_the_network_that_they_were_added_to(tmp_path, form):
    model = residual()
    trained = with_qdq(model, maxima_of(model, images()))
    constants = list(trained.graph.initializer)
    if form == "constant nodes":
        del trained.graph.initializer[:]
        for place, tensor in enumerate(constants):
            trained.graph.node.insert(place, helper.make_node("Constant", [], [tensor.name], value=tensor))
    elif form == "listed inputs":
        for tensor in constants:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            trained.graph.input.append(value)
    onnx.save(trained, tmp_path / "model.onnx")
    found = unquantized(tmp_path / "model.onnx")
    assert ops(found) == ops(model) and [value.name for value in found.graph.input] == ["input"]
    np.testing.assert_array_equal(run(found, images())["logits"], run(model, images())["logits"])


def test_with_fp16_scales_the_integers_are_the_same(tmp_path):
    model = plain()
    trained = with_qdq(model, maxima_of(model, images()))
    found, _ = again(read(trained, tmp_path), scales="fp16")
    assert_same_grids(grids(trained), grids(found), rtol=2**-10)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), stored=st.booleans())
def test_folding_a_batch_norm_changes_no_integer(tmp_path_factory, seed, stored):
    """Weights in the middle between two integers, as well: they are moved away from it before."""
    random = np.random.default_rng(seed)
    s = Sketch(seed=seed)
    x = s.conv("input", "conv1", 3, 16)
    norm = [
        s.constant(f"bn.{name}", values.astype(np.float32))
        for name, values in {
            "gamma": random.uniform(0.01, 30, 16) * random.choice([-1, 1], 16),
            "beta": random.standard_normal(16),
            "mean": random.standard_normal(16),
            "variance": random.uniform(1e-3, 10, 16),
        }.items()
    ]
    x = s.node("Relu", [s.node("BatchNormalization", [x, *norm], "bn")], "relu")
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), 16)
    weight = next(t for t in model.graph.initializer if t.name == "conv1.weight")
    halves = random.integers(-126, 127, (16, 3, 3, 3)) + 0.5
    halves[:, 0, 0, 0] = 127
    weight.CopyFrom(numpy_helper.from_array((halves / 127).astype(np.float32), weight.name))
    trained = with_qdq(model, maxima_of(model, images()), clip=1.0, stored=stored)
    network = read(trained, tmp_path_factory.mktemp("folded"))
    found, _ = again(network)
    assert "BatchNormalization" not in ops(found)
    expected = grids(trained)["conv1"]
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    factor = constants["bn.gamma"] / np.sqrt(constants["bn.variance"] + np.float32(1e-5))
    folded = grids(found)["conv1"]
    signs = np.sign(factor).astype(np.int8)[:, None, None, None]
    assert np.array_equal(folded.integers, expected.integers * signs)
    np.testing.assert_allclose(folded.scales, expected.scales * abs(factor), rtol=1e-5)
    assert apart(trained, found, images()) < 1e-3


def test_a_layer_without_scales_stays_in_floating_point(tmp_path):
    model = plain()
    trained = with_qdq(model, maxima_of(model, images()), skipped=["conv2"])
    _, plan = again(read(trained, tmp_path))
    assert [plan[name].precision for name in ("conv1", "conv2", "fc")] == ["int8", "fp32", "int8"]
    assert plan["conv2"].rule == "no-scale"
    assert plan["conv2"].reason == "the file gives no scale for its input and its weight"


def test_scales_are_found_before_operators_that_move_values(tmp_path):
    """Q/DQ after the ReLU, read through MaxPool and Flatten; and of two that are concatenated, the larger."""
    s = Sketch()
    convs = [s.conv("input", f"part{i}", 3, 8) for i in (1, 2)]
    parts = [pair(s, s.node("Relu", [conv], f"{conv}.relu"), i / 16) for i, conv in enumerate(convs, start=1)]
    joined = s.node("Concat", parts, "joined", axis=1)
    x = s.node("MaxPool", [joined], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = s.node("Conv", [x, pair(s, s.weight("wide.weight", 16, 16, 3, 3), 1 / 64)], "wide")
    x = s.node("MaxPool", [pair(s, x, 2 / 16)], "pool2", kernel_shape=[4, 4])
    x = s.node("Flatten", [x], "flat")
    turned = s.node("Transpose", [pair(s, s.weight("fc.weight", 10, 16), 1 / 64)], "turned", perm=[1, 0])
    s.node("MatMul", [x, turned], "logits")
    model = s.model(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10]))
    found, plan = again(read(model, tmp_path))
    assert {name: grid.data for name, grid in grids(found).items()} == {"wide": 2 / 16, "logits": 2 / 16}
    assert plan["part1"].rule == "no-scale"
    assert apart(model, found, images()) < 0.05


@pytest.mark.parametrize("axis", [1, -1])
def test_scales_along_another_axis_of_a_stored_weight_are_kept(tmp_path, axis):
    s = Sketch()
    x = s.node("Flatten", [s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 16)], "gap")], "flat")
    scales = np.linspace(1, 2, 10).astype(np.float32) / 64
    stored = [
        s.constant("w", s.random.integers(-127, 128, (16, 10)).astype(np.int8)),
        s.constant("ws", scales),
        s.constant("wz", np.zeros(10, np.int8)),
    ]
    weight = s.node("DequantizeLinear", stored, "w.dq", axis=axis)
    s.node("MatMul", [pair(s, x, 1 / 16), weight], "logits")
    model = s.model(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10]))
    found, _ = again(read(model, tmp_path))
    np.testing.assert_allclose(grids(found)["logits"].scales, scales, rtol=1e-6)
    assert apart(model, found, images()) < 1e-5


@pytest.mark.parametrize("axis", [0, -2])
@pytest.mark.parametrize("perm", [{"perm": [1, 0]}, {}])
def test_scales_of_channels_turn_with_their_weight(tmp_path, perm, axis):
    """Ten scales along the first axis of what becomes the second."""
    s = Sketch()
    x = s.node("Flatten", [s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 16)], "gap")], "flat")
    scales = np.linspace(1, 2, 10) / 64
    turned = s.node("Transpose", [pair(s, s.weight("w", 10, 16), scales, axis=axis)], "turned", **perm)
    s.node("MatMul", [pair(s, x, 1 / 16), turned], "logits")
    model = s.model(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10]))
    found, plan = again(read(model, tmp_path))
    np.testing.assert_allclose(grids(found)["logits"].scales, scales, rtol=1e-6)
    assert plan["logits"].precision == "int8" and apart(model, found, images()) < 1e-5


def test_a_pair_in_place_of_a_relu_becomes_a_clip(tmp_path):
    """ONNX Runtime's quantizer drops a ReLU before UINT8 with zero point 0, as this clips at 0, too."""
    s = Sketch()
    x = s.conv(pair(s, "input", 0.02, np.int8(0)), "conv1", 3, 16)
    x = s.node("MaxPool", [pair(s, x, 0.02, np.uint8(0))], "pool", kernel_shape=[2, 2])
    model = s.classify(pair(s, x, 0.02, np.uint8(0)), 16 * 11 * 11)
    network = read(model, tmp_path)
    assert ops(network.model) == ["Conv", "Clip", "MaxPool", "Flatten", "Gemm"]
    assert any("Q/DQ pairs that clip at 0 in place of a ReLU: 1;" in note for note in network.notes)
    assert apart(model, network.model, images()) < 0.05


def between(s, how, x, y):
    """A tensor made of two convolutions by some operators."""
    relus = [s.node("Relu", [conv], f"{conv}.relu") for conv in (x, y)]
    if how.startswith("clip"):
        lowest = {"clip from 0": 0, "clip from 1": 1, "clip from -1": -1}.get(how)
        low = "" if lowest is None else s.constant("low", np.float32(lowest))
        return s.node("Clip", [x, low, s.constant("high", np.float32(6))], "clip")
    pool = {"kernel_shape": [1, 1]}
    return {
        "relu": lambda: relus[0],
        "sigmoid": lambda: s.node("Sigmoid", [x], "op"),
        "abs": lambda: s.node("Abs", [x], "op"),
        "leaky": lambda: s.node("LeakyRelu", [x], "op"),
        "pooled": lambda: s.node("MaxPool", [x], "op", **pool),
        "pooled relu": lambda: s.node("MaxPool", [relus[0]], "op", **pool),
        "sum": lambda: s.node("Add", [relus[0], relus[1]], "op"),
        "half a sum": lambda: s.node("Add", [relus[0], y], "op"),
        "product": lambda: s.node("Mul", [relus[0], relus[1]], "op"),
        "half a product": lambda: s.node("Mul", [relus[0], y], "op"),
        "joined": lambda: s.node("Concat", relus, "op", axis=1),
        "half joined": lambda: s.node("Concat", [relus[0], y], "op", axis=1),
    }[how]()


@pytest.mark.parametrize(
    ("how", "clips"),
    [
        ("relu", False), ("sigmoid", False), ("abs", False), ("leaky", True),
        ("clip from 0", False), ("clip from 1", False), ("clip from -1", True), ("clip below", True),
        ("pooled", True), ("pooled relu", False), ("sum", False), ("half a sum", True), ("product", False),
        ("half a product", True), ("joined", False), ("half joined", True),
    ],
)  # fmt: skip
def test_a_clip_is_added_only_where_values_may_be_negative(tmp_path, how, clips):
    s = Sketch(seed=3)
    made = between(s, how, s.conv("input", "one", 3, 8), s.conv("input", "two", 3, 8))
    width = 16 if "joined" in how else 8
    x = s.node("GlobalAveragePool", [pair(s, made, 0.02, np.uint8(0))], "gap")
    model = s.classify(x, width)
    network = read(model, tmp_path)
    assert any("clip at 0" in note for note in network.notes) == clips
    assert apart(model, network.model, images()) < 0.05


def test_asymmetric_and_repeated_scales_become_one_range(tmp_path):
    s = Sketch()
    x = pair(s, "input", 0.01, np.uint8(100))
    x = pair(s, pair(s, x, 0.03), 0.02)
    integers = s.random.integers(0, 256, (16, 3, 3, 3)).astype(np.uint8)
    given = [s.constant("w", integers), s.constant("ws", np.float32(0.01)), s.constant("wz", np.uint8(3))]
    x = s.node("Conv", [x, s.node("DequantizeLinear", given, "w.dq")], "conv")
    network = read(s.classify(s.node("GlobalMaxPool", [x], "pool"), 16), tmp_path)
    assert network.scales.inputs["conv"] == (pytest.approx(127 * 0.03),)
    zero, several, weights = network.scales.notes
    assert zero.startswith("Activations with a zero point in the file: 1;")
    assert several == "Activations with several scales in the file: 1; the largest is used."
    assert "TensorRT does not take: 1 (conv)" in weights
    found, _ = again(network)
    assert grids(found)["conv"].integers.max(axis=(1, 2, 3)).tolist() == [127] * 16


def bad(kind):
    """A graph whose first Q/DQ cannot be removed."""
    s = Sketch()
    scale = np.float32({"zero": 0, "nan": np.nan, "negative": -1}.get(kind, 0.1))
    zeros = {"int16": np.int16(0), "uint16": np.uint16(0), "ragged": np.zeros(3, np.int8)}
    given = [
        s.constant("scale", np.full({"ragged": 2, "matrix": (2, 2)}.get(kind, ()), scale)),
        s.constant("zero", zeros.get(kind, np.int8(0))),
    ]
    if kind in ("computed", "half computed"):
        given[0] = s.node("ReduceMax", ["input"], "largest", keepdims=0)
    if kind == "half computed":
        shape = s.constant("one", np.array([1]))
        given[0] = s.node("Squeeze", [s.node("Reshape", [given[0], shape], "row")], "scalar")
    if kind == "fp8":
        s.constants[-1] = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0])
    if kind == "int4":
        s.constants[-1] = helper.make_tensor("zero", TensorProto.INT4, [], [0])
    attributes = {"block_size": 2} if kind == "blocks" else {}
    q = s.node("QuantizeLinear", ["input", *given], "q", **attributes)
    if kind == "no dq":
        q = s.node("MaxPool", [q], "pool", kernel_shape=[2, 2])
    if kind == "other scale":
        given = [s.constant("scale2", np.float32(0.2)), given[1]]
    x = s.node("DequantizeLinear", [q, *given], "dq", **attributes)
    if kind == "integers":
        x = s.node("DynamicQuantizeLinear", ["input"], "dynamic")
    x = s.conv(x, "conv", 3, 16)
    return s.classify(s.node("GlobalMaxPool", [x], "gmp"), 16)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("zero", "its scale is 0"),
        ("nan", "its scale is nan"),
        ("negative", "its scale is -1"),
        ("computed", "'largest' is not constant"),
        ("half computed", "'scalar' is not constant"),
        ("int16", "quantizes to INT16"),
        ("uint16", "quantizes to UINT16"),
        ("int4", "quantizes to INT4"),
        ("fp8", "quantizes to FLOAT8E4M3FN"),
        ("blocks", "for each block"),
        ("matrix", "for each block"),
        ("ragged", "2 scales and 3 zero points"),
        ("no dq", "MaxPool reads its integers"),
        ("other scale", "not that of its QuantizeLinear"),
        ("integers", "DynamicQuantizeLinear computes with integers"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_node(tmp_path, kind, match):
    model = bad(kind)
    model.opset_import[0].version = 21
    with pytest.raises(GraphError, match=match) as refusal:
        read(model, tmp_path)
    assert "model.onnx, node" in str(refusal.value.where) and refusal.value.hint


def test_integer_operators_of_onnx_runtime_are_refused_with_the_format_to_use(tmp_path):
    model = plain()
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "QLinearConv"
    model.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(GraphError, match="::QLinearConv") as refusal:
        read(model, tmp_path)
    assert "QuantFormat.QDQ" in refusal.value.hint


@settings(max_examples=150)
@given(st.randoms(use_true_random=False))
def test_damaged_qdq_are_refused_or_read_but_never_crash(tmp_path_factory, random):
    model = residual()
    model = with_qdq(model, dict.fromkeys(maxima_of(model, images(1)), 1.0), stored=True)
    graph = model.graph
    for _ in range(random.randint(1, 3)):
        node = random.choice([node for node in graph.node if node.op_type.endswith("Linear")])
        tensor = random.choice(graph.initializer)
        change = random.randrange(8)
        if change == 0 and node.input:
            node.input[random.randrange(len(node.input))] = random.choice(["", "gone", "input", tensor.name])
        elif change == 1 and node.input:
            del node.input[-1]
        elif change == 2:
            node.output[0] = random.choice(["", "logits", "input", tensor.name])
        elif change == 3:
            tensor.data_type = random.randrange(24)
        elif change == 4:
            tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
        elif change == 5:
            name = random.choice(["axis", "block_size", "output_dtype"])
            node.attribute.append(helper.make_attribute(name, random.choice([-9, 5, "x", [1, 2], 1.5])))
        elif change == 6:
            node.op_type = random.choice(["QuantizeLinear", "DequantizeLinear", "Relu", "Cast"])
        else:
            model.opset_import[0].version = random.choice([1, 7, 10, 13, 17, 21, 25])
    with contextlib.suppress(GraphError):
        read(model, tmp_path_factory.mktemp("damaged"))
