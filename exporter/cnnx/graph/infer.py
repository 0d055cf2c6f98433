"""Types and values that follow from a graph and a number of images, without running it.

Shapes and values need each other: the target of a Reshape may be computed from shapes. onnx's inference of a
whole graph follows only some of that arithmetic. Here, a node's types come from onnx, and its values, where
all that it reads is known, from onnx's reference evaluator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper

from cnnx.graph import edit
from cnnx.graph.constants import RANDOM, evaluate
from cnnx.graph.edit import ValueType

Values = dict[str, NDArray[Any]]
_LARGEST = 1 << 16  # values; shapes, indices and masks are smaller
# Their results are at most as large as what they read, even if inference does not know how large.
_SELECTING = frozenset({"Compress", "NonZero", "Unique"})
_LEFT = RANDOM | {"QuantizeLinear", "DequantizeLinear"}


def types_at(model: ModelProto, batch: int) -> dict[str, ValueType]:
    """Type of every tensor; a length is unknown only where it depends on the values of the images.

    Args:
        model: any graph.
        batch: number of images, if the graph leaves it free.

    Raises:
        GraphError: ranks, types or lengths contradict each other.
    """
    known, _ = infer(model, batch)
    bones = edit.skeleton(model)
    image = edit.data_inputs(model.graph)[0].name
    for value in bones.graph.input:
        if value.name == image:
            value.type.CopyFrom(_images(value.type, batch))
    nodes = [node for node in bones.graph.node if known.keys().isdisjoint(node.output)]
    edit.replace_nodes(bones.graph, nodes)
    bones.graph.initializer.extend(edit.tensor_from_array(name, values) for name, values in known.items())
    return edit.value_types(bones)


def infer(model: ModelProto, batch: int) -> tuple[Values, Mapping[str, TypeProto]]:
    """Values, except initializers, that follow from constants and shapes alone; and the types of tensors.

    Args:
        model: any graph.
        batch: number of images, if the graph leaves it free.
    """
    constants, (image, *others) = edit.initializers(model.graph), edit.data_inputs(model.graph)
    types = {image.name: _images(image.type, batch), **{value.name: value.type for value in others}}
    for tensor in model.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    known: Values = {}
    for node in model.graph.node:
        small = {name: edit.tensor_from_array(name, known[name]) for name in node.input if name in known}
        small |= {name: constants[name] for name in node.input if _is_small(constants.get(name))}
        found_types = _types(node, types, small, model)
        found = _values(node, {**types, **found_types}, small, edit.opset(model))
        types.update(found_types)
        for name, values in found.items():
            known[name] = values
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            types[name] = helper.make_tensor_type_proto(kind, list(values.shape))
    return known, types


def lengths(kind: TypeProto | None) -> list[int] | None:
    """Shape of a tensor; None if a length is unknown."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    found = [dim.dim_value for dim in kind.tensor_type.shape.dim if dim.HasField("dim_value")]
    return found if len(found) == len(kind.tensor_type.shape.dim) else None


def _images(kind: TypeProto, batch: int) -> TypeProto:
    """The type of the input, with a number of images if it has none."""
    fixed = TypeProto()
    fixed.CopyFrom(kind)
    for dim in fixed.tensor_type.shape.dim[:1]:
        if not dim.HasField("dim_value"):
            dim.dim_value = batch
    return fixed


def _is_small(tensor: TensorProto | None) -> bool:
    return tensor is not None and math.prod(tensor.dims) <= _LARGEST


def _types(
    node: NodeProto, types: Mapping[str, TypeProto], small: Mapping[str, TensorProto], model: ModelProto
) -> dict[str, TypeProto]:
    """Types of a node's outputs; none if onnx does not know the operator, or what it reads, or refuses it."""
    if any(name and name not in types for name in node.input):
        return {}
    given = {name: types[name] for name in node.input if name}
    try:
        schema = onnx.defs.get_schema(node.op_type, edit.opset(model), node.domain)
        return onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            given,
            dict(small),
            opset_imports=list(model.opset_import),
            ir_version=model.ir_version,
        )
    except (onnx.defs.SchemaError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return {}  # what follows stays unknown


def _values(
    node: NodeProto, types: Mapping[str, TypeProto], small: Mapping[str, TensorProto], version: int
) -> Values:
    """Values of a node's outputs that follow from a shape or from known values."""
    if node.op_type in ("Shape", "Size"):
        shape = lengths(types.get(node.input[0]))
        if shape is None:
            return {}
        if node.op_type == "Size":
            return {node.output[0]: np.array(math.prod(shape), np.int64)}
        start, end = edit.attribute(node, "start", 0), edit.attribute(node, "end")
        return {node.output[0]: np.array(shape[start:end], np.int64)}
    read = [name for name in node.input if name]
    if not read or any(name not in small for name in read) or node.op_type in _LEFT:
        return {}
    sizes = [lengths(types.get(name)) for name in node.output if name]
    if node.op_type not in _SELECTING and any(n is None or math.prod(n) > _LARGEST for n in sizes):
        return {}  # a graph that expands a scalar must not fill the memory
    return evaluate(node, small, version) or {}
