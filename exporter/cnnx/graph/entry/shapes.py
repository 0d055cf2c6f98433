"""Folds what follows from constants and shapes, and finds a batch of 1 that is baked into shapes.

Height and width are fixed, so that shapes depend on the batch alone. A value that is equal at two batches
is therefore a constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.constants import fold_constants
from cnnx.graph.infer import infer, lengths, types_at
from cnnx.graph.load import input_shape
from cnnx.limits import TENSOR_BYTES

_TRIED = (2, 3)


def refuse_huge(model: ModelProto) -> None:
    """Refuse a graph that makes a tensor of more than `TENSOR_BYTES` for one image.

    Raises:
        GraphError: it does.
    """
    for name, kind in types_at(model, 1).items():
        if kind.elem_type == TensorProto.UNDEFINED:
            continue  # a sequence, or an optional value
        known = [length for length in kind.shape or () if isinstance(length, int)]
        size = math.prod(known) * np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
        if size > TENSOR_BYTES:
            raise GraphError(
                f"the tensor {name} has {size / 2**30:.1f} GiB for one image",
                hint=f"export a model whose tensors have at most {TENSOR_BYTES / 2**30:g} GiB each",
            )


def fix_baked_batch(model: ModelProto) -> bool:
    """Fix the batch at 1 if the graph gives a batch of 1 for any input, in place; whether it does.

    Exporters bake the batch of their example input into shapes, as in [1, 512], and declare it free.
    """
    if isinstance(input_shape(model)[0], int):
        return False
    _, types = infer(model, _TRIED[0])
    found = [lengths(types.get(value.name)) for value in model.graph.output]
    if all(shape[0] == _TRIED[0] for shape in found if shape):
        return False
    edit.data_inputs(model.graph)[0].type.tensor_type.shape.dim[0].dim_value = 1
    return True


def fold_known(model: ModelProto) -> None:
    """Replace what follows from constants and shapes, but not from the batch, by constants. Edits in place.

    A Reshape whose target depends on the batch gets 0 or -1 in that place.
    """
    _fold_constants(model)
    if any(node.op_type in ("Shape", "Size") for node in model.graph.node):
        _fold_shapes(model)
        _fold_constants(model)  # weights that were reshaped to a shape
    edit.drop_unread_nodes(model.graph)
    edit.drop_unread_initializers(model.graph)


def _fold_constants(model: ModelProto) -> None:
    while fold_constants(model):
        pass  # what is folded now tells the shapes of more


def _fold_shapes(model: ModelProto) -> None:
    own = input_shape(model)[0]
    first = infer(model, _TRIED[0])
    second = first if isinstance(own, int) else infer(model, _TRIED[1])
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
            if value is None:
                continue
            if node.op_type == "Reshape" and index == 1:
                del node.attribute[:]  # allowzero, with which 0 would be a length
            name = names.fresh(f"{name}.known")
            model.graph.initializer.append(edit.tensor_from_array(name, value))
            node.input[index] = name
    edit.drop_unread_nodes(model.graph)


def _target(
    node: NodeProto, first: Mapping[str, TypeProto], second: Mapping[str, TypeProto]
) -> NDArray[np.int64] | None:
    """The target of a Reshape for any batch; None if it is not known, or depends on it in two places."""
    before, after = (_both(name, first, second) for name in (node.input[0], node.output[0]))
    if before is None or after is None or any(0 in pair for pair in after):
        return None
    # 0 copies the length from the input; -1 follows from the other lengths.
    target = [
        a if a == b else 0 if before[index : index + 1] == [(a, b)] else -1
        for index, (a, b) in enumerate(after)
    ]
    return np.array(target, np.int64) if target.count(-1) < 2 else None


def _both(
    name: str, first: Mapping[str, TypeProto], second: Mapping[str, TypeProto]
) -> list[tuple[int, int]] | None:
    """Each length of a tensor at both batches; None if one is unknown, or the rank differs."""
    one, other = lengths(first.get(name)), lengths(second.get(name))
    if one is None or other is None or len(one) != len(other):
        return None
    return list(zip(one, other, strict=True))


def declare_outputs(model: ModelProto) -> None:
    """Declare the inferred shapes of the outputs. Edits in place."""
    types = edit.value_types(model)
    for value in model.graph.output:
        shape = types[value.name].shape if value.name in types else None
        if shape is not None:
            kind = helper.make_tensor_type_proto(types[value.name].elem_type, shape)
            value.type.CopyFrom(kind)
