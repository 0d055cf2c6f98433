"""The layers found in a graph, against published counts, and on a small INT8 network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph.inspect import Layer, expected_types, int8_share, layers, left_out
from cnnx.graph.policy.placement import plan_layers
from cnnx.graph.policy.rules import cause
from cnnx.recipe import LayerOverride, PrecisionPolicy
from tests.inputs.graphs import GRAPHS, Sketch

HALF = np.float16


def hollow(name: str, shape: tuple[int, ...]) -> TensorProto:
    """A constant without its values: inspection must not touch them (VGG-16's are 553 MB)."""
    if math.prod(shape) <= 1024:
        return numpy_helper.from_array(np.zeros(shape, np.float32), name)
    return TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)


def chain(steps: list[tuple[str, tuple[int, ...], dict[str, Any]]], batch: int | str = "n") -> ModelProto:
    """A network of one path: operator, shape of the weight if any, attributes."""
    nodes, constants, tensor = [], [], "x"
    for number, (op, shape, attributes) in enumerate(steps):
        names = [f"w{number}", f"b{number}"] if shape else []
        constants += [hollow(n, s) for n, s in zip(names, (shape, shape[:1]), strict=False)]
        name = f"{op}{number}"
        nodes.append(helper.make_node(op, [tensor, *names], [f"{name}:0"], name, **attributes))
        tensor = f"{name}:0"
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 224, 224])
    logits = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [batch, 1000])
    graph = helper.make_graph(nodes, "chain", [images], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def conv(
    outputs: int, inputs: int, kernel: int, **attributes: Any
) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    attributes = {"pads": [kernel // 2] * 4, **attributes}
    return "Conv", (outputs, inputs, kernel, kernel), attributes


def pool(kernel: int, stride: int) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    return "MaxPool", (), {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}


def dense(outputs: int, inputs: int) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    return "Gemm", (outputs, inputs), {"transB": 1}


def vgg16(batch: int | str = "n") -> ModelProto:
    """Simonyan and Zisserman 2014, table 1, column D."""
    steps, inputs = [], 3
    for outputs, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            steps += [conv(outputs, inputs, 3), ("Relu", (), {})]
            inputs = outputs
        steps.append(pool(2, 2))
    steps += [("Flatten", (), {}), dense(4096, 25088), dense(4096, 4096), dense(1000, 4096)]
    return chain(steps, batch)


def alexnet() -> ModelProto:
    """Krizhevsky, Sutskever and Hinton 2012, figure 2: two groups in three convolutions; 227 pixels wide."""
    steps = [
        conv(96, 3, 11, strides=[4, 4], pads=[2, 2, 1, 1]), pool(3, 2),
        conv(256, 48, 5, group=2), pool(3, 2),
        conv(384, 256, 3), conv(384, 192, 3, group=2), conv(256, 192, 3, group=2), pool(3, 2),
        ("Flatten", (), {}), dense(4096, 9216), dense(4096, 4096), dense(1000, 4096),
    ]  # fmt: skip
    return chain(steps)


@pytest.mark.parametrize(
    ("model", "parameters", "multiply_adds"),
    [
        # torchvision's metadata gives 138357544 and 15.47 G for its vgg16.
        (vgg16(), 138_357_544, 15_470_264_320),
        (vgg16(batch=8), 138_357_544, 15_470_264_320),
        # The paper's "60 million parameters"; 724 M is the usual figure for the two-group network.
        (alexnet(), 60_965_224, 724_406_816),
    ],
)
def test_published_counts(model: ModelProto, parameters: int, multiply_adds: int) -> None:
    rows = layers(model)
    assert sum(row.parameters for row in rows) == parameters
    assert sum(row.multiply_adds for row in rows) == multiply_adds
    assert sum(row.weight_bytes for row in rows) == 4 * parameters
    assert {row.data_type for row in rows} == {"fp32"}
    assert int8_share(rows) == 0
    assert rows[-1].output_shape == (1000,)


def small_int8_network(weight_of_second: str = "w2.dq") -> ModelProto:
    """Conv (INT8) - Conv (weight as asked) - LRN in FP32 - Relu - MatMul (INT8), FP16 elsewhere."""
    constants = {
        "s": np.array(0.5, HALF), "z": np.array(0, np.int8),
        "w1": np.ones((8, 2, 3, 3), np.int8), "w2": np.ones((4, 8, 1, 1), np.int8),
        "w3": np.ones((4, 5), np.int8),
        "w2.half": np.ones((4, 8, 1, 1), HALF), "b": np.ones(8, HALF), "bn": np.ones(4, HALF),
    }  # fmt: skip

    def node(op: str, inputs: str, name: str, **attributes: Any) -> NodeProto:
        return helper.make_node(op, inputs.split(), [name], name, **attributes)

    nodes = [
        node("QuantizeLinear", "x s z", "x.q"), node("DequantizeLinear", "x.q s z", "x.dq"),
        *(node("DequantizeLinear", f"{w} s z", f"{w}.dq") for w in ("w1", "w2", "w3")),
        node("Conv", "x.dq w1.dq b", "conv1", group=2),
        node("QuantizeLinear", "conv1 s z", "c.q"), node("DequantizeLinear", "c.q s z", "c.dq"),
        node("Conv", f"c.dq {weight_of_second}", "conv2"),
        node("BatchNormalization", "conv2 bn bn bn bn", "norm"),
        node("Cast", "norm", "up", to=TensorProto.FLOAT),
        node("LRN", "up", "lrn", size=5),
        node("Cast", "lrn", "down", to=TensorProto.FLOAT16),
        node("GlobalAveragePool", "down", "pool"), node("Flatten", "pool", "flat"),
        node("QuantizeLinear", "flat s z", "f.q"), node("DequantizeLinear", "f.q s z", "f.dq"),
        node("MatMul", "f.dq w3.dq", "logits"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 4, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT16, ["n", 5])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def test_layers_of_an_int8_network() -> None:
    rows = {row.name: row for row in layers(small_int8_network())}
    assert rows["conv1"] == Layer(
        name="conv1", op="Conv", output_shape=(8, 4, 4), parameters=8 * 2 * 9 + 8,
        multiply_adds=8 * 16 * 2 * 9, activation_bytes=2 * 8 * 16, data_type="int8",
        weight_bytes=8 * 2 * 9 + 2 * 8, activation_scale=0.5,
    )  # fmt: skip
    assert rows["logits"].multiply_adds == 4 * 5
    assert rows["norm"].parameters == 8  # scale and shift; mean and variance are not trained
    found = {name: row.data_type for name, row in rows.items()}
    assert found == {
        "conv1": "int8", "conv2": "int8", "norm": "fp16", "lrn": "fp32", "pool": "fp16", "flat": "fp16",
        "logits": "int8",
    }  # fmt: skip
    assert int8_share(rows.values()) == 1


def test_a_weight_in_half_makes_the_layer_half() -> None:
    model = small_int8_network("w2.half")
    assert expected_types(model) == {"conv1": "int8", "conv2": "fp16", "logits": "int8"}
    assert int8_share(layers(model)) == pytest.approx((2304 + 20) / (2304 + 512 + 20))
    assert next(row for row in layers(model) if row.name == "conv2").activation_scale is None


def test_an_image_size_that_varies_is_refused() -> None:
    model = vgg16()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(GraphError, match="not fully known") as refusal:
        layers(model)
    assert refusal.value.where == "node Conv0"


def test_an_input_without_a_shape_is_refused() -> None:
    model = vgg16()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(GraphError, match="not fully known"):
        layers(model)


def test_a_tensor_of_unknown_rank_is_refused() -> None:
    model = vgg16()
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.INT64, ["rank"]))
    model.graph.node[1].CopyFrom(helper.make_node("Expand", ["Conv0:0", "size"], ["Relu1:0"], name="vague"))
    with pytest.raises(GraphError, match="'Relu1:0' is not fully known: None") as refusal:
        layers(model)
    assert refusal.value.where == "node vague"


@pytest.mark.parametrize("scale", ["of each channel", "computed"])
def test_only_a_constant_scale_of_the_whole_tensor_is_told(scale: str) -> None:
    model = small_int8_network()
    dequantize = next(node for node in model.graph.node if node.output[0] == "c.dq")
    if scale == "computed":
        place = list(model.graph.node).index(dequantize)
        model.graph.node.insert(place, helper.make_node("Abs", ["s"], ["computed"], name="computed"))
        dequantize.input[1] = "computed"
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.full(8, 0.5, HALF), "scales"))
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.int8), "zeros"))
        dequantize.input[1:] = ["scales", "zeros"]
    scales = {row.name: row.activation_scale for row in layers(model)}
    assert (scales["conv1"], scales["conv2"]) == (0.5, None)


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_patches_beside_the_batch_count_for_one_image(batch: int | str) -> None:
    """Four patches of 8 x 8 x 16 per image, as MobileViT folds them into the batch: 4 x 64 x 16 x 32 MACs."""
    target = numpy_helper.from_array(np.array([-1, 64, 16]), "patches")
    weight = numpy_helper.from_array(np.zeros((16, 32), np.float32), "weight")
    nodes = [
        helper.make_node("Reshape", ["x", "patches"], ["tokens"], "cut"),
        helper.make_node("MatMul", ["tokens", "weight"], ["y"], "product"),
    ]
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 16, 16, 16])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 64, 32])
    graph = helper.make_graph(nodes, "patches", [images], [result], [target, weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    cut, product = layers(model)
    assert (cut.output_shape, product.output_shape) == ((64, 16), (64, 32))
    assert product.multiply_adds == 4 * 64 * 16 * 32


def test_a_tensor_that_shape_inference_does_not_know_is_named() -> None:
    model = chain([pool(2, 2), conv(8, 3, 3), pool(224, 224), ("Flatten", (), {}), dense(1000, 8)])
    model.graph.node[0].op_type, model.graph.node[0].domain = "Twirl", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(GraphError, match="inference found no type for") as refusal:
        layers(model)
    assert refusal.value.where == "node MaxPool0"


def test_what_keeps_macs_out_of_int8_is_added_up_by_cause() -> None:
    rows = layers(small_int8_network("w2.half"))
    causes = {"conv2": "few channels", "pool": "no weights"}
    assert left_out(rows, causes) == (("few channels", 4 * 8 * 16),)
    assert left_out([], {}) == ()


def test_layers_that_a_search_or_a_recipe_left_out_count_together() -> None:
    """Repair gives each layer a reason with a figure of its own: three small sums hid behind one larger."""
    model = GRAPHS["residual"]()
    rows = layers(model)
    convs = ["b.conv2", "b.conv1", "a.conv1"]
    overrides = (
        LayerOverride(convs[0], "fp16", "kept by hand"),
        *(LayerOverride(name, "fp16", f"put back by repair: alone {name}") for name in convs[1:]),
    )
    policy = PrecisionPolicy(overrides=overrides)
    plan = plan_layers(model, precision="int8", policy=policy, maxima=None)
    macs = {row.name: row.multiply_adds for row in rows}
    causes = {layer.node: cause(layer.rule, layer.reason) for layer in plan}
    out = [row for row in rows if causes[row.name] != "quantized layers"]
    assert sorted(left_out([dataclasses.replace(row, data_type="fp16") for row in out], causes))[:2] == [
        ("kept by hand", macs["b.conv2"]),
        ("put back by repair", macs["b.conv1"] + macs["a.conv1"]),
    ]


def test_an_activation_takes_memory_only_where_others_read_what_it_reads() -> None:
    s = Sketch()
    x = s.conv("input", "conv", 3, 16)
    shared = s.node("Sigmoid", [x], "shared")
    y = s.node("Relu", [s.node("Mul", [x, shared], "product")], "alone")
    model = s.classify(s.node("GlobalAveragePool", [y], "gap"), 16)
    taken = {row.name: row.activation_bytes for row in layers(model)}
    whole = 4 * 16 * 12 * 12
    assert taken == {
        "conv": whole, "shared": whole, "product": whole, "alone": 0, "gap": 64, "flatten": 0, "fc": 40
    }  # fmt: skip


def test_a_constant_is_no_layer_and_a_layer_of_constants_alone_is_not_int8() -> None:
    s = Sketch()
    value = numpy_helper.from_array(np.ones((1, 16, 1, 1), np.float32))
    constant = s.node("Constant", [], "constant", value=value)
    shape = s.node("ConstantOfShape", [s.constant("shape", np.array([1, 16, 1, 1]))], "zeros")
    x = s.node(
        "Sum", [s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 16)], "gap"), constant, shape], "sum"
    )
    rows = {row.name: row for row in layers(s.classify(x, 16))}
    assert list(rows) == ["zeros", "conv", "gap", "sum", "flatten", "fc"]
    assert (rows["zeros"].data_type, rows["zeros"].parameters, rows["zeros"].weight_bytes) == ("fp32", 0, 0)
    assert (rows["sum"].parameters, rows["sum"].multiply_adds, rows["sum"].output_shape) == (0, 0, (16, 1, 1))
    assert (rows["fc"].activation_scale, rows["fc"].multiply_adds) == (None, 160)


def test_integers_have_the_name_of_their_type() -> None:
    s = Sketch()
    model = s.classify(s.node("GlobalAveragePool", [s.conv("input", "conv", 3, 16)], "gap"), 16)
    for op, source, name, options in (
        ("ArgMax", "logits", "class", {"axis": 1}),
        ("Sign", "class", "sign", {}),
    ):
        model.graph.node.append(helper.make_node(op, [source], [name], name=name, **options))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("sign", TensorProto.INT64, ["batch", 1]))
    assert [row.data_type for row in layers(model)][-2:] == ["fp32", "int64"]
