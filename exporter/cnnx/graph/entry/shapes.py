"""Folds values computed from shapes, and finds a batch of 1 that is baked into them.

Height and width are fixed, so that shapes depend on the batch alone. A value that is equal at two batches
is therefore a constant. Shapes are inferred node by node by onnx, values come from its reference evaluator.
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
from cnnx.graph.constants import evaluate
from cnnx.graph.load import input_shape

_TRIED = (2, 3)
_LARGEST = 1 << 16  # values; shapes, indices and masks are smaller
_Values = dict[str, NDArray[Any]]


def fix_baked_batch(model: ModelProto) -> bool:
    """Fix the batch at 1 if the graph gives a batch of 1 for any input, in place; whether it does.

    Exporters bake the batch of their example input into shapes, as in [1, 512], and declare it free.
    """
    if isinstance(input_shape(model)[0], int):
        return False
    _, types = inferred(model, _TRIED[0])
    found = [types[value.name] for value in model.graph.output if value.name in types]
    batches = [lengths[0] for lengths in map(_lengths, found) if lengths]
    if all(batch == _TRIED[0] for batch in batches):
        return False
    edit.data_inputs(model.graph)[0].type.tensor_type.shape.dim[0].dim_value = 1
    return True


def fold_shapes(model: ModelProto) -> None:
    """Replace values that depend on shapes, but not on the batch, by constants. Edits in place.

    A Reshape whose target depends on the batch gets 0 or -1 in that place.
    """
    if not any(node.op_type in ("Shape", "Size") for node in model.graph.node):
        return
    own = input_shape(model)[0]
    first = inferred(model, own if isinstance(own, int) else _TRIED[0])
    second = first if isinstance(own, int) else inferred(model, _TRIED[1])
    names = edit.Names(model.graph)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name not in first[0] or name not in second[0]:
                continue
            value: NDArray[Any] | None = first[0][name]
            if node.op_type == "Reshape" and index == 1:
                value = _target(node, first[1], second[1])
            elif not np.array_equal(first[0][name], second[0][name]):
                value = None
            if value is not None:
                name = names.fresh(f"{name}.known")
                model.graph.initializer.append(edit.tensor_from_array(name, value))
                node.input[index] = name
    edit.drop_unread_nodes(model.graph)


def _target(
    node: NodeProto, first: Mapping[str, TypeProto], second: Mapping[str, TypeProto]
) -> NDArray[np.int64] | None:
    """The target of a Reshape for any batch; None if it is not known, or depends on it in two places."""
    source, result, unknown = node.input[0], node.output[0], TypeProto()
    before, after = (_lengths(first.get(name, unknown)) for name in (source, result))
    other = _lengths(second.get(result, unknown))
    if before is None or after is None or other is None or edit.attribute(node, "allowzero", 0):
        return None
    if 0 in after or len(after) != len(other):
        return None
    copied = [index < len(before) and before[index] == length for index, length in enumerate(after)]
    differs = [a != b for a, b in zip(after, other, strict=True)]
    # 0 copies the length from the input; -1 follows from the other lengths.
    target = [
        length if not free else 0 if same else -1
        for length, free, same in zip(after, differs, copied, strict=True)
    ]
    return np.array(target, np.int64) if target.count(-1) < 2 else None


def inferred(model: ModelProto, batch: int) -> tuple[_Values, Mapping[str, TypeProto]]:
    """Values, except initializers, that follow from the shapes alone at a batch; and the types of tensors."""
    version, ir = list(model.opset_import), model.ir_version
    constants = edit.initializers(model.graph)
    types: dict[str, TypeProto] = {}
    for value in edit.data_inputs(model.graph):
        types[value.name] = TypeProto()
        types[value.name].CopyFrom(value.type)
        types[value.name].tensor_type.shape.dim[0].dim_value = batch
    for tensor in model.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    known: _Values = {}
    for node in model.graph.node:
        small = {name: edit.tensor_from_array(name, known[name]) for name in node.input if name in known}
        small |= {name: constants[name] for name in node.input if _is_small(constants.get(name))}
        if (found := _value(node, types, small, edit.opset(model))) is not None:
            known[node.output[0]] = found
            types[node.output[0]] = helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(found.dtype), list(found.shape)
            )
            continue
        given = {name: types[name] for name in node.input if name in types}
        schema = onnx.defs.get_schema(node.op_type, edit.opset(model))
        try:
            found_types = onnx.shape_inference.infer_node_outputs(
                schema, node, given, small, opset_imports=version, ir_version=ir
            )
        except onnx.shape_inference.InferenceError:
            continue  # what follows stays unknown
        types.update(found_types)
    return known, types


def _is_small(tensor: TensorProto | None) -> bool:
    return tensor is not None and math.prod(tensor.dims) <= _LARGEST


def _value(
    node: NodeProto, types: Mapping[str, TypeProto], small: Mapping[str, TensorProto], version: int
) -> NDArray[Any] | None:
    """The value of a node that follows from a shape or from known values; None if it does not."""
    if node.op_type in ("Shape", "Size") and node.input[0] in types:
        lengths = _lengths(types[node.input[0]])
        if lengths is None:
            return None
        if node.op_type == "Size":
            return np.array(math.prod(lengths), np.int64)
        end = edit.attribute(node, "end")
        return np.array(lengths[edit.attribute(node, "start", 0) : end], np.int64)
    read = [name for name in node.input if name]
    if not read or len(node.output) != 1 or any(name not in small for name in read):
        return None
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.op_type.startswith("Random"):
        return None
    found = evaluate(node, small, version)
    return found if found is not None and found.size <= _LARGEST else None


def _lengths(kind: TypeProto) -> list[int] | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    lengths = [dim.dim_value for dim in kind.tensor_type.shape.dim if dim.HasField("dim_value")]
    return lengths if len(lengths) == len(kind.tensor_type.shape.dim) else None


def declare_outputs(model: ModelProto) -> None:
    """Declare the inferred shapes of the outputs. Edits in place."""
    types = edit.value_types(model)
    for value in model.graph.output:
        shape = types[value.name].shape if value.name in types else None
        if shape is not None:
            kind = helper.make_tensor_type_proto(types[value.name].elem_type, shape)
            value.type.CopyFrom(kind)
