"""Layers of a finished graph: type, shape, cost and INT8 inputs.

Everything is read from the graph that compilers receive, not from a plan.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph.edit import (
    ACTIVATIONS,
    ValueType,
    Wiring,
    array,
    attribute,
    data_inputs,
    label,
    type_name,
    value_types,
    wiring,
)
from cnnx.graph.infer import types_at
from cnnx.record import LayerRow

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that TensorRT runs in INT8 if data and constant weight come from DequantizeLinear."""

_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
_NOT_LAYERS = _CONVERSIONS | {"Constant"}
_VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_TYPE_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}


@dataclass(frozen=True, slots=True)
class Layer(LayerRow):
    """A node that computes, as opposed to a conversion or constant.

    Attributes:
        data_type: type of its input data: "int8", "fp16", "fp32", or the ONNX name of another type.
        weight_bytes: its constants as stored, without scales.
        activation_scale: step size of its quantized input; None if the input is not INT8.
    """

    data_type: str
    weight_bytes: int
    activation_scale: float | None = None


def layers(model: ModelProto) -> tuple[Layer, ...]:
    """Layers of a graph in graph order: all nodes except conversions and constants.

    Raises:
        GraphError: shapes contradict each other, or depend on the values of the images.
    """
    wires, types = wiring(model.graph), types_at(model, 1)
    images = types[data_inputs(model.graph)[0].name].shape
    batch = images[0] if images and isinstance(images[0], int) else 1
    return tuple(
        _layer(node, wires, types, batch) for node in model.graph.node if node.op_type not in _NOT_LAYERS
    )


def int8_share(rows: Iterable[Layer]) -> float:
    """Share of the MACs with INT8 operands; 0 without MACs."""
    rows = tuple(rows)
    total = sum(row.multiply_adds for row in rows)
    return sum(row.multiply_adds for row in rows if row.data_type == "int8") / total if total else 0.0


def left_out(rows: Iterable[Layer], causes: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """What keeps MACs out of INT8, and how many each, most first; empty if all are INT8.

    Args:
        rows: layers of the finished graph.
        causes: node -> cause of its precision, equal for layers that are out for the same cause.
    """
    costs: Counter[str] = Counter()
    for row in rows:
        if row.data_type != "int8" and row.multiply_adds:
            costs[causes.get(row.name, "")] += row.multiply_adds
    return tuple(costs.most_common())


def expected_types(model: ModelProto) -> dict[str, str]:
    """Type of the input data ("int8", "fp16", "fp32") of each weighted layer, by node name.

    Raises:
        GraphError: as `layers`.
    """
    wires, types = wiring(model.graph), value_types(model)
    return {label(node): data_type(node, wires, types) for node in weighted_nodes(model, wires)}


def weighted_nodes(model: ModelProto, wires: Wiring) -> list[NodeProto]:
    """Convolutions and matrix products with a constant weight, which gain from INT8."""
    return [
        n
        for n in model.graph.node
        if n.op_type in WEIGHTED and constant_behind(wires, n.input[1]) is not None
    ]


def depthwise_nodes(model: ModelProto) -> frozenset[str]:
    """Names of the convolutions whose groups have one input channel each."""
    wires, types = wiring(model.graph), value_types(model)
    return frozenset(
        label(node)
        for node in weighted_nodes(model, wires)
        if node.op_type == "Conv"
        and attribute(node, "group", 1) > 1
        and _lengths(types, node.input[1], node)[1] == 1
    )


def constant_behind(wires: Wiring, tensor: str) -> TensorProto | None:
    """The initializer behind a tensor, through Q, DQ and Cast; None for data."""
    while tensor not in wires.initializers:
        node = wires.producers.get(tensor)
        if node is None or node.op_type not in _CONVERSIONS:
            return None
        tensor = node.input[0]
    return wires.initializers[tensor]


def dequantizer(wires: Wiring, tensor: str) -> NodeProto | None:
    """The DequantizeLinear that produces a tensor, or None."""
    node = wires.producers.get(tensor)
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def reads_int8(node: NodeProto, wires: Wiring, types: Mapping[str, ValueType]) -> bool:
    """Whether all data of a node, and the weight of a weighted layer, is dequantized from INT8.

    One branch of higher precision makes TensorRT compute in it. An Add with only one INT8 branch is not INT8.
    """
    operands = list(node.input[:2]) if node.op_type in WEIGHTED else _data(node, wires)
    return bool(operands) and all(_from_int8(wires, types, name) for name in operands)


def data_type(node: NodeProto, wires: Wiring, types: Mapping[str, ValueType]) -> str:
    """Type of a node's data: "int8" (see `reads_int8`), "fp16", "fp32", or the ONNX name of another.

    Raises:
        GraphError: shape inference did not reach the node.
    """
    if reads_int8(node, wires, types):
        return "int8"
    data = (*_data(node, wires), node.output[0])[0]
    elem_type = _value_type(types, data, node).elem_type
    return _TYPE_NAMES.get(elem_type) or type_name(elem_type).lower()


def _data(node: NodeProto, wires: Wiring) -> list[str]:
    return [name for name in node.input if name and constant_behind(wires, name) is None]


def _from_int8(wires: Wiring, types: Mapping[str, ValueType], tensor: str) -> bool:
    dequantize = dequantizer(wires, tensor)
    stored = types.get(dequantize.input[0]) if dequantize else None
    return stored is not None and stored.elem_type == TensorProto.INT8


def _layer(node: NodeProto, wires: Wiring, types: Mapping[str, ValueType], batch: int) -> Layer:
    constants = _trained(node, wires, types)
    arrives = data_type(node, wires, types)
    dequantize = dequantizer(wires, node.input[0]) if arrives == "int8" else None
    return Layer(
        name=label(node),
        op=node.op_type,
        output_shape=_lengths(types, node.output[0], node)[1:],
        parameters=sum(math.prod(tensor.dims) for tensor in constants),
        multiply_adds=_multiply_adds(node, types) // batch,
        activation_bytes=0 if _in_place(node, wires) else _output_bytes(node, types),
        data_type=arrives,
        weight_bytes=sum(_stored_bytes(tensor) for tensor in constants),
        activation_scale=_scalar(wires, dequantize.input[1]) if dequantize else None,
    )


def _trained(node: NodeProto, wires: Wiring, types: Mapping[str, ValueType]) -> list[TensorProto]:
    """Weights and biases: float constants except scalars and running statistics."""
    names = node.input[1:3] if node.op_type == "BatchNormalization" else node.input
    found = [(name, constant_behind(wires, name)) for name in names if name]
    return [
        tensor
        for name, tensor in found
        if tensor is not None and math.prod(tensor.dims) > 1 and _value_type(types, name, node).is_float
    ]


def _in_place(node: NodeProto, wires: Wiring) -> bool:
    """Whether a node needs no output memory: a view, or the only reader of an activation's input."""
    alone = wires.only_consumer(node.input[0]) is not None if node.input else False
    return node.op_type in _VIEWS or (node.op_type in ACTIVATIONS and alone)


def _output_bytes(node: NodeProto, types: Mapping[str, ValueType]) -> int:
    kind = helper.tensor_dtype_to_np_dtype(_value_type(types, node.output[0], node).elem_type)
    return math.prod(_lengths(types, node.output[0], node)) * int(kind.itemsize)


def _stored_bytes(tensor: TensorProto) -> int:
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _scalar(wires: Wiring, name: str) -> float | None:
    tensor = wires.initializers.get(name)
    return float(array(tensor).flat[0]) if tensor is not None and math.prod(tensor.dims) == 1 else None


def _multiply_adds(node: NodeProto, types: Mapping[str, ValueType]) -> int:
    """MACs of the whole batch: each output value costs as many as it sums products."""
    if node.op_type == "Conv":
        summed = math.prod(_lengths(types, node.input[1], node)[1:])  # the channels of its group only
    elif node.op_type == "Gemm":
        summed = _lengths(types, node.input[1], node)[1 if attribute(node, "transB", 0) else 0]
    elif node.op_type == "MatMul":
        summed = _lengths(types, node.input[0], node)[-1]
    else:
        return 0
    return math.prod(_lengths(types, node.output[0], node)) * summed


def _lengths(types: Mapping[str, ValueType], tensor: str, node: NodeProto) -> tuple[int, ...]:
    kind = _value_type(types, tensor, node)
    if kind.lengths is None:
        raise GraphError(
            f"the shape of {tensor!r} is not fully known: {kind.shape}",
            where=f"node {label(node)}",
            hint="export the model with a fixed image size, and without layers such as NonZero, whose shape "
            "depends on the values of the image; only the batch may be dynamic",
        )
    return kind.lengths


def _value_type(types: Mapping[str, ValueType], tensor: str, node: NodeProto) -> ValueType:
    if tensor not in types:
        raise GraphError(
            f"shape inference found no type for {tensor!r}",
            where=f"node {label(node)}",
            hint="export the model with standard ONNX operators, whose output shapes are known",
        )
    return types[tensor]
