"""Networks that carry Q/DQ, as quantization-aware training and other quantizers write them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from tests.inputs.graphs import Sketch

WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Grid:
    """How a layer is quantized: scale of its data, and integers and scales of its weight, (O,)."""

    data: float
    integers: NDArray[np.int8]
    scales: NDArray[np.float32]


def channel_axis(node: NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    return 1 - next((entry.i for entry in node.attribute if entry.name == "transB"), 0)


def rounded(values: NDArray[Any], scale: NDArray[Any], axis: int | None) -> NDArray[np.int8]:
    """The integers of a weight with one scale, or one per index of an axis."""
    if axis is not None:
        scale = scale.reshape([-1 if index == axis else 1 for index in range(values.ndim)])
    return np.clip(np.rint(values / scale), -128, 127).astype(np.int8)


def pair(s: Sketch, x: str, scale: Any, zero: Any = None, *, axis: int = 1) -> str:
    """Draw Q and DQ of a tensor, by default for INT8; returns their result."""
    name = f"{x}/{len(s.nodes)}"
    scale = np.asarray(scale, np.float32)
    zero = np.zeros(scale.shape, np.int8) if zero is None else zero
    given = [s.constant(f"{name}.scale", scale), s.constant(f"{name}.zero", zero)]
    integers = s.node("QuantizeLinear", [x, *given], f"{name}.q", axis=axis)
    return s.node("DequantizeLinear", [integers, *given], f"{name}.dq", axis=axis)


def with_qdq(
    model: ModelProto,
    maxima: Mapping[str, float],
    *,
    stored: bool = False,
    clip: float = 0.75,
    per_channel: bool = True,
    skipped: Collection[str] = (),
    shortcuts: bool = True,
    opset: int = 19,
) -> ModelProto:
    """A copy in which weighted layers, and sums, read their inputs through Q/DQ.

    Args:
        model: an FP32 graph without Q/DQ.
        maxima: largest |x| of each activation; scales reach to `clip` of it, as learned scales do.
        stored: store weights as INT8 with a DQ alone.
        per_channel: one scale per output channel of a weight.
        skipped: layers that stay in floating point.
        shortcuts: quantize the inputs of sums, too.
        opset: operator set of the result. Before 13, Q/DQ have no axis.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    added: dict[str, NDArray[Any]] = {}
    nodes: list[NodeProto] = []
    done: dict[str, str] = {}

    def read_by(tensor: str, scale: NDArray[np.float32], axis: int | None) -> str:
        if tensor in done:
            return done[tensor]
        integers, inputs = f"{tensor}/int8", [f"{tensor}/scale", f"{tensor}/zero"]
        added.update(zip(inputs, (scale, np.zeros(scale.shape, np.int8)), strict=True))
        attributes = {} if axis is None else {"axis": axis}
        if stored and tensor in constants:
            added[integers] = rounded(constants[tensor], scale, axis)
        else:
            nodes.append(helper.make_node("QuantizeLinear", [tensor, *inputs], [integers], **attributes))
        done[tensor] = f"{tensor}/dq"
        nodes.append(helper.make_node("DequantizeLinear", [integers, *inputs], [done[tensor]], **attributes))
        return done[tensor]

    for source in model.graph.node:
        node = NodeProto()
        node.CopyFrom(source)
        weighted = node.op_type in WEIGHTED and node.name not in skipped
        for index in [0] if weighted else range(2) if node.op_type == "Add" and shortcuts else []:
            scale = np.float32(clip * maxima[node.input[index]] / 127)
            node.input[index] = read_by(node.input[index], np.array(scale), None)
        if weighted:
            weight, axis = constants[node.input[1]], channel_axis(node)
            others = tuple(i for i in range(weight.ndim) if i != axis) if per_channel else None
            scale = np.asarray(clip * np.abs(weight).max(axis=others) / 127, np.float32)
            node.input[1] = read_by(node.input[1], scale, axis if per_channel else None)
        nodes.append(node)
    left = {name: values for name, values in constants.items() if not (stored and f"{name}/int8" in added)}
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in {**left, **added}.items()]
    graph = helper.make_graph(nodes, "quantized", model.graph.input, model.graph.output, tensors)
    ir = 13 if opset > 23 else 10
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def grids(model: ModelProto) -> dict[str, Grid]:
    """Layer -> how it is quantized, for the layers of a graph whose data and weight come from a DQ."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        pairs = [made.get(name) for name in node.input[:2]]
        if node.op_type not in WEIGHTED or any(p is None or p.op_type != "DequantizeLinear" for p in pairs):
            continue
        data, weight = pairs
        scales = constants[weight.input[1]].astype(np.float32).reshape(-1)
        if weight.input[0] in constants:
            integers = constants[weight.input[0]]
        else:
            source = constants[made[weight.input[0]].input[0]]
            integers = rounded(source, scales, channel_axis(node) if scales.size > 1 else None)
        channels = integers.shape[channel_axis(node)]
        found[node.name] = Grid(float(constants[data.input[1]]), integers, np.broadcast_to(scales, channels))
    return found


def shortcut_scales(model: ModelProto) -> dict[str, list[float]]:
    """Add -> scales of its inputs that come from a DQ."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    return {
        node.name: [
            float(constants[made[name].input[1]])
            for name in node.input
            if name in made and made[name].op_type == "DequantizeLinear"
        ]
        for node in model.graph.node
        if node.op_type == "Add"
    }
