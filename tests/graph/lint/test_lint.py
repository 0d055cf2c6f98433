"""The linter on graphs named by their fault, and beside the parser whose refusals it foretells."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph.edit import value_types
from cnnx.graph.lint import RULES, lint, refuse, refused, slow
from cnnx.graph.passes.fp16 import type_fp16
from cnnx.graph.passes.qdq import insert_qdq
from cnnx.graph.policy.placement import Scales, plan_layers
from cnnx.graph.simplify import simplify
from cnnx.recipe import PrecisionPolicy
from tests.inputs.graphs import GRAPHS

HALF, INT8 = np.float16, np.int8
FLOAT16 = TensorProto.FLOAT16


class Sketch:
    """A graph in the making: each method adds a node and gives the name of what it makes."""

    def __init__(self, shape: tuple[int | str, ...] = ("n", 16, 8, 8), kind: int = FLOAT16) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.input = helper.make_tensor_value_info("x", kind, shape)

    def constant(self, name: str, values: Any, kind: Any = HALF) -> str:
        self.constants[name] = np.asarray(values, kind)
        return name

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}:0"], name, **attributes))
        return f"{name}:0"

    def qdq(self, tensor: str, scale: float = 0.05, kind: Any = HALF, name: str = "") -> str:
        name = name or tensor.split(":")[0]
        pair = (self.constant(f"{name}.s", scale, kind), self.constant(f"{name}.z", 0, INT8))
        quantized = self.node("QuantizeLinear", f"{name}.q", tensor, *pair)
        return self.node("DequantizeLinear", f"{name}.dq", quantized, *pair)

    def weight(self, name: str, shape: tuple[int, ...], kind: Any = HALF, axis: int = 0) -> str:
        channels = shape[axis]
        operands = (
            self.constant(f"{name}.w", np.ones(shape), INT8),
            self.constant(f"{name}.ws", np.full(channels, 0.01), kind),
            self.constant(f"{name}.wz", np.zeros(channels), INT8),
        )
        return self.node("DequantizeLinear", f"{name}.wdq", *operands, axis=axis)

    def conv(self, name: str, tensor: str, shape: tuple[int, ...] = (16, 16, 3, 3), **attributes: Any) -> str:
        pads = [shape[2] // 2] * 4
        bias = self.constant(f"{name}.b", np.zeros(shape[0]))
        return self.node("Conv", name, tensor, self.weight(name, shape), bias, pads=pads, **attributes)

    def model(self, result: str, opset: int = 19) -> ModelProto:
        output = helper.make_tensor_value_info(result, TensorProto.UNDEFINED, None)
        constants = [numpy_helper.from_array(values, name) for name, values in self.constants.items()]
        graph = helper.make_graph(self.nodes, "sketch", [self.input], [output], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(model).graph.output[0]
        model.graph.output[0].CopyFrom(inferred)
        return model


def residual() -> Sketch:
    """Two convolutions, a shortcut and a classifier, quantized as TensorRT wants it."""
    sketch = Sketch()
    stem = sketch.node("Relu", "relu1", sketch.conv("conv1", sketch.qdq("x")))
    shared = sketch.qdq(stem)
    added = sketch.node("Add", "add", sketch.conv("conv2", shared), shared)
    pooled = sketch.node("GlobalAveragePool", "pool", sketch.node("Relu", "relu2", added))
    flat = sketch.qdq(sketch.node("Flatten", "flat", pooled))
    bias = sketch.constant("fc.b", np.zeros(10))
    sketch.node("Gemm", "logits", flat, sketch.weight("fc", (10, 16)), bias, transB=1)
    return sketch


def good() -> ModelProto:
    return residual().model("logits:0")


def changed(name: str, values: Any, kind: Any = HALF) -> ModelProto:
    """The good graph with other values for one constant."""
    sketch = residual()
    sketch.constant(name, values, kind)
    return sketch.model("logits:0")


def node_of(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def edited(name: str, *, inputs: dict[int, str] | None = None, **attributes: Any) -> ModelProto:
    """The good graph with other inputs or attributes for one node."""
    model = good()
    node = node_of(model, name)
    for place, tensor in (inputs or {}).items():
        node.input[place] = tensor
    for key, value in attributes.items():
        kept = [entry for entry in node.attribute if entry.name != key]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(key, value)])
    return model


def alone(op: str, shape: tuple[int | str, ...] = ("n", 16, 8, 8), **attributes: Any) -> ModelProto:
    """One operator on an FP16 input."""
    sketch = Sketch(shape)
    return sketch.model(sketch.node(op, "it", "x", **attributes))


def int8_conv(shape: tuple[int, ...], channels: int, before: str = "", **attributes: Any) -> ModelProto:
    sketch = Sketch(("n", channels, 8, 8))
    source = sketch.node(before, "before", "x") if before else "x"
    return sketch.model(sketch.conv("it", sketch.qdq(source), shape, **attributes))


def versions(opset: int = 19, ir: int = 10) -> ModelProto:
    model = alone("Relu")
    model.opset_import[0].version, model.ir_version = opset, ir
    return model


def custom_operator(name: str = "Relu") -> ModelProto:
    model = alone("Relu")
    model.graph.node[0].op_type, model.graph.node[0].domain = name, "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def external() -> ModelProto:
    model = good()
    tensor = next(t for t in model.graph.initializer if t.name == "conv2.w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return model


def mixed() -> ModelProto:
    sketch = Sketch()
    constant = sketch.constant("c", np.ones((1, 16, 1, 1)), np.float32)
    return sketch.model(sketch.node("Add", "it", "x", constant))


def pool_past_the_end(length: int | str = 5, *, ceil_mode: int = 1, width: int | str = "") -> ModelProto:
    # PyTorch gives 3 values for 5 (kernel 2, stride 2, padding 1): the window at 5 would see only padding.
    return alone(
        "MaxPool",
        ("n", 16, length, width or length),
        kernel_shape=[2, 2],
        strides=[2, 2],
        pads=[1] * 4,
        ceil_mode=ceil_mode,
    )


def uint8(name: str = "x") -> ModelProto:
    return changed(f"{name}.z", 0, np.uint8)


def int32_bias() -> ModelProto:
    sketch = Sketch()
    result = sketch.conv("it", sketch.qdq("x"))
    bias = (sketch.constant("b", np.ones(16), np.int32), sketch.constant("bs", np.ones(16)))
    dequantized = sketch.node("DequantizeLinear", "b.dq", *bias, axis=0)
    sketch.nodes.insert(-2, sketch.nodes.pop())
    sketch.nodes[-1].input[2] = dequantized
    return sketch.model(result)


def in_a_node(model: ModelProto, name: str) -> ModelProto:
    """The constant comes from a Constant node, as some exporters write it."""
    place = [tensor.name for tensor in model.graph.initializer].index(name)
    value = model.graph.initializer.pop(place)
    model.graph.node.insert(0, helper.make_node("Constant", [], [name], f"{name}.node", value=value))
    return model


def computed_scale() -> ModelProto:
    sketch = Sketch()
    scale = sketch.node("Squeeze", "scale", sketch.node("ReduceMax", "top", "x", keepdims=1))
    zero = sketch.constant("z", 0, INT8)
    quantized = sketch.node("QuantizeLinear", "q", "x", scale, zero)
    return sketch.model(sketch.node("DequantizeLinear", "dq", quantized, scale, zero))


def half_scales_of_old_opset() -> ModelProto:
    model = good()
    model.opset_import[0].version = 17
    return model


def two_scales(other: float) -> ModelProto:
    model = edited("x.dq", inputs={1: "other"})
    model.graph.initializer.append(numpy_helper.from_array(np.array(other, HALF), "other"))
    return model


def plain_gemm(axis: int) -> ModelProto:
    sketch = Sketch(("n", 16))
    return sketch.model(sketch.node("Gemm", "it", sketch.qdq("x"), sketch.weight("it", (16, 16), axis=axis)))


def lone_quantize() -> ModelProto:
    sketch = Sketch()
    pair = (sketch.constant("s", 0.1), sketch.constant("z", 0, INT8))
    return sketch.model(sketch.node("QuantizeLinear", "q", "x", *pair))


def relu_after_quantize() -> ModelProto:
    sketch = Sketch()
    return sketch.model(sketch.node("Relu", "relu", sketch.qdq(sketch.conv("it", sketch.qdq("x")))))


def wide_scales() -> ModelProto:
    sketch = Sketch(kind=TensorProto.FLOAT)
    quantized = sketch.qdq("x", kind=np.float32)
    conv = sketch.node("Conv", "it", quantized, sketch.weight("it", (16, 16, 1, 1), kind=np.float32))
    return sketch.model(sketch.node("Cast", "cast", conv, to=TensorProto.FLOAT16))


def quantized_pool(*, given: bool = False) -> ModelProto:
    sketch = Sketch()
    pooled = sketch.node("GlobalAveragePool", "it", sketch.qdq("x"))
    return sketch.model(sketch.qdq(pooled) if given else pooled)


def quantized_output() -> ModelProto:
    """A network that gives INT8, although it also dequantizes it for a layer."""
    sketch = Sketch()
    relu = sketch.node("Relu", "relu", sketch.qdq("x"))
    model = sketch.model(relu)
    model.graph.output.append(helper.make_tensor_value_info("x.q:0", TensorProto.INT8, ["n", 16, 8, 8]))
    return model


def concat(scales: tuple[float, float]) -> ModelProto:
    sketch = Sketch()
    tensors = [sketch.node(op, op, "x") for op in ("Relu", "Abs")]
    branches = [sketch.qdq(tensor, scale) for tensor, scale in zip(tensors, scales, strict=True)]
    return sketch.model(sketch.node("Concat", "it", *branches, axis=1))


def weight_of_two_parts() -> ModelProto:
    """Their scales are those of channels, and meet nowhere."""
    sketch = Sketch()
    parts = [sketch.weight(name, (8, 16, 1, 1)) for name in ("low", "high")]
    weight = sketch.node("Concat", "joined", *parts, axis=0)
    return sketch.model(sketch.node("Conv", "it", "x", weight))


def assorted() -> ModelProto:
    """What rules pass over: no ceil_mode, FP32 scales of no layer, a weight without a zero point."""
    sketch = Sketch()
    pooled = sketch.node("MaxPool", "pool", "x", kernel_shape=[3, 3], strides=[2, 2])
    wide = sketch.node("Cast", "up", sketch.node("LRN", "lrn", pooled, size=5), to=TensorProto.FLOAT)
    narrow = sketch.node("Cast", "down", sketch.qdq(wide, kind=np.float32, name="wide"), to=FLOAT16)
    operands = (sketch.constant("w", np.ones((16, 16, 1, 1)), INT8), sketch.constant("ws", np.full(16, 0.01)))
    weight = sketch.node("DequantizeLinear", "wdq", *operands, axis=0)
    return sketch.model(sketch.node("Conv", "conv", narrow, weight))


def norm_after_conv() -> ModelProto:
    sketch = Sketch()
    values = [sketch.constant(name, np.ones(16)) for name in ("g", "b", "m", "v")]
    conv = sketch.conv("conv", sketch.qdq("x"))
    return sketch.model(sketch.node("BatchNormalization", "it", conv, *values))


def norm_after_gemm() -> ModelProto:
    sketch = Sketch()
    values = [sketch.constant(name, np.ones(16)) for name in ("g", "b", "m", "v")]
    flat = sketch.node("Flatten", "flat", "x")
    hidden = sketch.node("Gemm", "hidden", flat, sketch.constant("w", np.ones((16, 16 * 8 * 8))), transB=1)
    return sketch.model(sketch.node("BatchNormalization", "it", hidden, *values))


def norm_beside_a_reader() -> ModelProto:
    """It cannot be folded: the convolution's own output is needed too (DenseNet's first layers)."""
    sketch = Sketch()
    values = [sketch.constant(name, np.ones(16)) for name in ("g", "b", "m", "v")]
    conv = sketch.conv("conv", sketch.qdq("x"))
    norm = sketch.node("BatchNormalization", "norm", conv, *values)
    return sketch.model(sketch.node("Concat", "it", conv, norm, axis=1))


def two_quantizers() -> ModelProto:
    sketch = Sketch()
    branches = [sketch.qdq("x", name=name) for name in ("one", "two")]
    return sketch.model(sketch.node("Add", "it", *branches))


def uint8_weight() -> ModelProto:
    sketch = residual()
    sketch.constant("conv1.w", np.ones((16, 16, 3, 3)), np.uint8)
    sketch.constant("conv1.wz", np.zeros(16), np.uint8)
    return sketch.model("logits:0")


def one_scale_as_a_vector() -> ModelProto:
    """It has no axis, whatever the attribute says."""
    sketch = residual()
    sketch.constant("conv1.ws", np.full(1, 0.01))
    sketch.constant("conv1.wz", np.zeros(1), INT8)
    model = sketch.model("logits:0")
    node_of(model, "conv1.wdq").ClearField("attribute")
    return model


def small_scales_in_fp32() -> ModelProto:
    """FP32 holds them without loss."""
    sketch = Sketch(kind=TensorProto.FLOAT)
    return sketch.model(sketch.node("Relu", "relu", sketch.qdq("x", scale=3e-5, kind=np.float32)))


def per_channel_activation() -> ModelProto:
    sketch = residual()
    sketch.constant("x.s", np.full(16, 0.05))
    sketch.constant("x.z", np.zeros(16), INT8)
    return sketch.model("logits:0")


HALF_ZERO = np.full(16, 0.01) * (np.arange(16) != 3)
FAULTS: dict[str, tuple[str, str, str, Callable[[], ModelProto]]] = {
    # name of the fault: rule, node, a figure the message must give, the graph
    "opset-too-new": ("versions", "sketch", "21", lambda: versions(opset=21)),
    "opset-too-old": ("versions", "sketch", "11", lambda: versions(opset=11)),
    "ir-too-new": ("versions", "sketch", "11", lambda: versions(ir=11)),
    "custom-operator": ("unknown-operator", "it", "com.example", custom_operator),
    "unheard-of-custom-operator": (
        "unknown-operator",
        "it",
        "com.example",
        lambda: custom_operator("Twirl"),
    ),
    "operator-newer-than-opset": ("unknown-operator", "it", "Swish", lambda: alone("Swish")),
    "unsupported-operator": ("unsupported-operator", "it", "Det", lambda: alone("Det", ("n", 8, 8))),
    "weights-in-another-file": ("external-data", "conv2.w", "another file", external),
    "float64": ("float64", "it:0", "float64", lambda: alone("Cast", to=TensorProto.DOUBLE)),
    "half-plus-float": ("invalid", "it", "inconsistent type", mixed),
    "image-size-varies": ("dynamic-shape", "x", "'h'", lambda: alone("Relu", ("n", 16, "h", 8))),
    "pool-of-a-size-that-varies": ("dynamic-shape", "x", "'h'", lambda: pool_past_the_end("h")),
    "pool-of-a-height-that-varies": ("dynamic-shape", "x", "'h'", lambda: pool_past_the_end("h", width=5)),
    "even-lrn": ("lrn-window", "it", "4", lambda: alone("LRN", size=4)),
    "wide-lrn": ("lrn-window", "it", "17", lambda: alone("LRN", size=17)),
    "pool-starts-in-padding": ("pool-ceil", "it", "starts at 5", pool_past_the_end),
    "uint8-activation": ("quantized-type", "x.q", "UINT8", uint8),
    "uint8-weight": ("quantized-type", "conv1.wdq", "UINT8", uint8_weight),
    "int32-bias": ("int32-bias", "b.dq", "INT32", int32_bias),
    "zero-point": ("zero-point", "x.q", "5", lambda: changed("x.z", 5, INT8)),
    "computed-scale": ("scale-not-constant", "q", "scale:0", computed_scale),
    "negative-scale": ("scale-value", "x.q", "scale of the tensor is -0.125", lambda: changed("x.s", -0.125)),
    "negative-scale-from-a-node": (
        "scale-value",
        "x.q",
        "-0.125",
        lambda: in_a_node(changed("x.s", -0.125), "x.s"),
    ),
    "infinite-scale": ("scale-value", "x.q", "inf", lambda: changed("x.s", np.inf)),
    "dead-channel": (
        "scale-value",
        "conv1.wdq",
        "channel 3 of 16 is 0",
        lambda: changed("conv1.ws", HALF_ZERO),
    ),
    "half-scale-before-opset-19": ("invalid", "x.q", "float16", half_scales_of_old_opset),
    "two-scales-in-a-pair": ("scale-mismatch", "x.dq", "0.0625", lambda: two_scales(0.0625)),
    "two-scales-1-percent-apart": ("scale-mismatch", "x.dq", "0.0505", lambda: two_scales(0.0505)),
    "block-scales": (
        "block-quantization",
        "conv1.wdq",
        "2 axes",
        lambda: changed("conv1.ws", np.ones((16, 16))),
    ),
    "scale-a-channel-of-activation": ("activation-per-channel", "x.q", "16", per_channel_activation),
    "weight-axis-of-conv": ("weight-axis", "conv1.wdq", "axis 1", lambda: edited("conv1.wdq", axis=1)),
    "weight-axis-of-gemm": ("weight-axis", "it.wdq", "axis 0", lambda: plain_gemm(axis=0)),
    "quantized-output": ("unpaired", "q", "no node dequantizes", lone_quantize),
    "quantized-output-of-a-pair": ("unpaired", "x.q", "no node dequantizes", quantized_output),
    "unfamiliar-operator": ("unfamiliar-operator", "it", "Mish", lambda: alone("Mish")),
    "quantized-before-relu": ("quantized-before-relu", "it", "relu", relu_after_quantize),
    "shortcut-in-half": (
        "shortcut-not-quantized",
        "add",
        "'relu1:0'",
        lambda: edited("add", inputs={1: "relu1:0"}),
    ),
    "float-scales-among-halves": ("fp32-scales", "x.dq", "2 of 2", wide_scales),
    "subnormal-scale": (
        "subnormal-scale",
        "conv1.wdq",
        "16 of 16",
        lambda: changed("conv1.ws", np.full(16, 3e-5)),
    ),
    "two-channels-a-group": (
        "group-channels",
        "it",
        "2 input and 2 output",
        lambda: int8_conv((16, 2, 3, 3), 16, group=8),
    ),
    "two-channels-out-a-group": (
        "group-channels",
        "it",
        "4 input and 2 output",
        lambda: int8_conv((16, 4, 3, 3), 32, group=8),
    ),
    "two-channels-in-a-group": (
        "group-channels",
        "it",
        "2 input and 8 output",
        lambda: int8_conv((16, 2, 3, 3), 4, group=2),
    ),
    "depthwise": ("depthwise", "it", "16 groups", lambda: int8_conv((16, 1, 3, 3), 16, group=16)),
    "small-conv": ("small-layer", "it", "8 channels in, 8 out", lambda: int8_conv((8, 8, 3, 3), 8, "Relu")),
    "odd-channels": ("small-layer", "it", "17 channels in, 17 out", lambda: int8_conv((17, 17, 3, 3), 17)),
    "grouped-pointwise": ("small-layer", "it", "kernel 1x1", lambda: int8_conv((16, 4, 1, 1), 16, group=4)),
    "average-of-int8": ("average-pool", "it", "not quantized", quantized_pool),
    "concat-of-two-scales": ("concat-scales", "it", "0.02 to 0.04", lambda: concat((0.02, 0.04))),
    "norm-after-conv": ("batch-norm", "it", "conv", norm_after_conv),
    "norm-after-gemm": ("batch-norm", "it", "hidden", norm_after_gemm),
    "pool-that-copies": ("no-op-pool", "it", "1x1", lambda: alone("AveragePool", kernel_shape=[1, 1])),
    "two-quantizers": ("several-quantizers", "x", "2", two_quantizers),
}


GOOD: dict[str, Callable[[], ModelProto]] = {
    "residual": good,
    "conv-that-reads-the-image": lambda: int8_conv((8, 3, 3, 3), 3),
    "grouped-in-fours": lambda: int8_conv((32, 4, 3, 3), 16, group=4),
    "pool-that-ends-inside": lambda: pool_past_the_end(length=6),
    "pool-that-drops-the-rest": lambda: pool_past_the_end(ceil_mode=0),
    "lrn": lambda: alone("LRN", size=5),
    "widest-lrn": lambda: alone("LRN", size=15),
    "oldest-opset": lambda: versions(opset=13),
    "newest-opset": lambda: versions(opset=20),
    "small-scales-in-fp32": small_scales_in_fp32,
    "pool-of-int8-that-gives-int8": lambda: quantized_pool(given=True),
    "pool-that-takes-every-second": lambda: alone("MaxPool", kernel_shape=[1, 1], strides=[2, 2]),
    "scales-that-are-one-but-for-rounding": lambda: two_scales(float(np.nextafter(HALF(0.05), HALF(1)))),
    "one-scale-as-a-vector": one_scale_as_a_vector,
    "gemm-along-outputs": lambda: plain_gemm(axis=1),
    "concat-of-one-scale": lambda: concat((0.04, 0.04)),
    "weight-of-two-parts": weight_of_two_parts,
    "norm-beside-a-reader": norm_beside_a_reader,
    "assorted": assorted,
    "plain-half": lambda: alone("AveragePool", kernel_shape=[3, 3]),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_graphs_have_no_findings(name: str) -> None:
    findings = lint(GOOD[name]())
    assert not findings
    refuse(findings, where="good.onnx")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_nothing_else(name: str) -> None:
    rule, node, figure, make = FAULTS[name]
    findings = lint(make())
    assert {finding.rule for finding in findings} == {rule}
    assert findings[0].node == node
    assert figure in findings[0].message
    assert findings[0].hint


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name][0] not in ("invalid", "versions")])
def test_a_fault_is_found_after_what_has_none(name: str) -> None:
    rule, node, _, make = FAULTS[name]
    model, before = make(), onnx.compose.add_prefix(assorted(), "before.")
    nodes = [*before.graph.node, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for field in ("input", "output", "initializer"):
        getattr(model.graph, field).extend(getattr(before.graph, field))
    findings = lint(model)
    assert ({finding.rule for finding in findings}, findings[0].node) == ({rule}, node)


def test_what_stands_beside_a_lone_q_or_dq_is_named() -> None:
    pairs = [[f"{name}.s", f"{name}.z"] for name in ("a", "b", "c")]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", *pairs[0]], ["a"], "dq"),
        helper.make_node("QuantizeLinear", ["a", *pairs[1]], ["q:0"], "q"),
        helper.make_node("MaxPool", ["q:0"], ["pool:0"], "pool", kernel_shape=[2, 2]),
        helper.make_node("DequantizeLinear", ["pool:0", *pairs[2]], ["y"], "last"),
    ]
    constants = [
        numpy_helper.from_array(np.array(value), name)
        for pair in pairs
        for name, value in zip(pair, (np.float32(0.1), np.int8(0)), strict=True)
    ]
    image = helper.make_tensor_value_info("x", TensorProto.INT8, ["n", 3, 8, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 7, 7])
    graph = helper.make_graph(nodes, "lone", [image], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    found = {finding.node: finding.message for finding in lint(model) if finding.rule == "unpaired"}
    assert found == {
        "q": "MaxPool reads its INT8 output",
        "dq": "its input comes from the graph's input",
        "last": "its input comes from MaxPool",
    }


def test_every_rule_has_a_fault() -> None:
    assert {rule.name for rule in RULES} | {"invalid"} == {rule for rule, *_ in FAULTS.values()}


def test_refusal_lists_errors_with_hints_and_lets_warnings_pass() -> None:
    refuse(lint(FAULTS["depthwise"][3]()), where="warned.onnx")
    with pytest.raises(GraphError) as refusal:
        refuse(lint(FAULTS["dead-channel"][3]()), where="model.onnx")
    assert refusal.value.where == "model.onnx"
    assert refusal.value.what.startswith("the graph has a fault that")
    assert "scale-value: conv1.wdq: the scale of channel 3 of 16 is 0" in refusal.value.what
    for count, more in ((10, ""), (12, "\n  and 2 more")):
        sketch = Sketch()
        tensor = "x"
        for number in range(count):
            tensor = sketch.node("LRN", f"lrn{number}", tensor, size=4)
        with pytest.raises(GraphError) as refusal:
            refuse(lint(sketch.model(tensor)), where="model.onnx")
        said = refusal.value.what
        assert f"{count} faults" in said and said.count("lrn-window") == 10 and "lrn9" in said
        assert said.endswith(more or "15)") and ("more" in said) == bool(more)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("scales", ["fp16", "fp32"])
def test_what_cnnx_writes_has_no_findings(name: str, scales: Scales) -> None:
    model = GRAPHS[name]()
    simplify(model)
    maxima = dict.fromkeys(value_types(model), 1.0)
    policy = PrecisionPolicy(small_layers="int8", reason="the graphs are small")
    plan = plan_layers(model, precision="int8", policy=policy, maxima=maxima, scales=scales)
    quantized = insert_qdq(model, plan, ranges=maxima, scales=scales)
    findings = lint(type_fp16(quantized, plan) if scales == "fp16" else quantized)
    assert {finding.rule for finding in findings} <= {"small-layer"}


def broken_copies(model: ModelProto) -> Iterator[ModelProto]:
    """The model with one thing taken away or bent at a time."""
    for place, node in enumerate(model.graph.node):
        for count in range(len(node.input)):
            for change in ("cut", "dangling"):
                copy = ModelProto.FromString(model.SerializeToString())
                if change == "cut":
                    del copy.graph.node[place].input[count:]
                else:
                    copy.graph.node[place].input[count] = "nowhere"
                yield copy
        for field in ("attribute", "output", "op_type"):
            copy = ModelProto.FromString(model.SerializeToString())
            copy.graph.node[place].ClearField(field)
            yield copy
    for place in range(len(model.graph.initializer)):
        for field in ("raw_data", "dims", "name"):
            copy = ModelProto.FromString(model.SerializeToString())
            copy.graph.initializer[place].ClearField(field)
            yield copy


def speaks(model: ModelProto) -> bool:
    """Whether the linter finds or refuses something."""
    try:
        return bool(lint(model))
    except GraphError:
        return True


@pytest.mark.parametrize("name", ["residual", "lrn", "pool-that-ends-inside"])
def test_broken_graphs_are_findings_or_refusals_not_crashes(name: str) -> None:
    verdicts = [speaks(broken) for broken in broken_copies(GOOD[name]())]
    assert sum(verdicts) > len(verdicts) / 2


# The parser of TensorRT for RTX works without a GPU: its message about a fault appears on this machine.


@functools.cache
def parser_module() -> Any:
    """The bindings, with the libraries that the execution provider's wheel brings loaded before them."""
    spec = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if spec is None or not spec.submodule_search_locations or not sys.platform.startswith("linux"):
        pytest.skip("TensorRT for RTX is not installed")
    folder = Path(next(iter(spec.submodule_search_locations)))
    for pattern in ("libcudart.so.13*", "libtensorrt_rtx.so.1*", "libtensorrt_onnxparser_rtx.so.1*"):
        ctypes.CDLL(str(next(folder.rglob(pattern))), mode=ctypes.RTLD_GLOBAL)
    return pytest.importorskip("tensorrt_rtx_bindings")


class Parser:
    def __init__(self) -> None:
        self.module = parser_module()
        self.builder = self.module.Builder(self.module.Logger(self.module.Logger.INTERNAL_ERROR))
        flag = 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(flag)
        self.parser = self.module.OnnxParser(self.network, self.builder.logger)

    def accepts(self, model: ModelProto) -> bool:
        return bool(self.parser.parse(model.SerializeToString()))


PARSER_REFUSES = {
    "block-scales",
    "dead-channel",
    "even-lrn",
    "half-plus-float",
    "int32-bias",
    "negative-scale",
    "negative-scale-from-a-node",
    "operator-newer-than-opset",
    "uint8-weight",
    "unheard-of-custom-operator",
    "unsupported-operator",
    "weights-in-another-file",
    "wide-lrn",
    "zero-point",
}


@pytest.mark.parametrize("name", GOOD)
def test_the_parser_accepts_what_the_linter_does(name: str) -> None:
    assert Parser().accepts(GOOD[name]())


@pytest.mark.parametrize("name", FAULTS)
def test_what_the_parser_refuses_is_an_error_to_the_linter(name: str) -> None:
    # The other errors it takes: uint8 as INT8, an infinite scale, a weight axis. That is why they are errors.
    model = FAULTS[name][3]()
    accepted = Parser().accepts(model)
    assert accepted == (name not in PARSER_REFUSES)
    assert accepted or lint(model)[0].severity == "error"


def test_lists_of_operators_are_the_parsers() -> None:
    supports = Parser().parser.supports_operator
    assert {name for name in refused.UNSUPPORTED if supports(name)} == set()
    assert {name for name in slow.FAMILIAR if not supports(name)} == set()
    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert known >= refused.UNSUPPORTED | slow.FAMILIAR
