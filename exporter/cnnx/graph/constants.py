"""Passes that fold constant subgraphs; `cnnx.graph.simplify` describes passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cnnx.graph import edit
from cnnx.graph.edit import ValueType

# Results that are larger than this and than their inputs are not folded: a graph that expands a scalar must
# not fill the memory.
_LARGEST = 1 << 22

# INT8 weights must stay INT8. Random values must not be folded to one draw.
_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant"})
RANDOM = frozenset({"Bernoulli", "Dropout", "Multinomial", "RandomNormalLike", "RandomUniformLike"})
"""Operators whose results differ from run to run."""


def constants_to_initializers(model: ModelProto) -> int:
    """Turn Constant nodes into initializers, which other passes and quantization expect."""
    constants = {node.output[0]: _constant(node) for node in model.graph.node if node.op_type == "Constant"}
    found = {name: values for name, values in constants.items() if values is not None}
    kept = [node for node in model.graph.node if node.output[0] not in found]
    model.graph.initializer.extend(edit.tensor_from_array(name, values) for name, values in found.items())
    edit.replace_nodes(model.graph, kept)
    return len(found)


def _constant(node: NodeProto) -> NDArray[Any] | None:
    entry = node.attribute[0]
    value = helper.get_attribute_value(entry)
    if entry.name == "value":
        values: NDArray[Any] = numpy_helper.to_array(value)
        return values
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    return np.array(value, kinds[entry.name]) if entry.name in kinds else None


def fold_constants(model: ModelProto) -> int:
    """Fold nodes that depend only on constants, such as a kernel concatenated from parts.

    Values come from onnx's reference evaluator. Nodes that have subgraphs, a custom domain, or results of
    large or unknown size are not folded.
    """
    constants, types = edit.initializers(model.graph), edit.value_types(model)
    outputs = {value.name for value in model.graph.output}
    kept, folded = [], []
    for node in model.graph.node:
        values = None
        if outputs.isdisjoint(node.output) and _is_foldable(node, constants, types):
            values = evaluate(node, constants, edit.opset(model))
        if values is None:
            kept.append(node)
            continue
        tensors = [edit.tensor_from_array(name, each) for name, each in values.items()]
        constants.update((tensor.name, tensor) for tensor in tensors)
        folded += tensors
    changes = len(model.graph.node) - len(kept)
    model.graph.initializer.extend(folded)
    edit.replace_nodes(model.graph, kept)
    return changes


def _is_foldable(
    node: NodeProto, constants: Mapping[str, TensorProto], types: Mapping[str, ValueType]
) -> bool:
    if node.op_type in _KEPT | RANDOM:
        return False
    read = [name for name in node.input if name]
    if (
        not read
        or any(name not in constants for name in read)
        or any(entry.HasField("g") for entry in node.attribute)
    ):
        return False
    shapes = [types[name].lengths if name in types else None for name in node.output if name]
    sizes = [math.prod(shape) for shape in shapes if shape is not None]
    given = sum(int(math.prod(constants[name].dims)) for name in read)
    return len(sizes) == len(shapes) and sum(sizes) <= max(_LARGEST, given)


def evaluate(
    node: NodeProto, constants: Mapping[str, TensorProto], opset: int
) -> dict[str, NDArray[Any]] | None:
    """The outputs of a node whose inputs are constants, from onnx's reference evaluator.

    None if it has no such operator, or refuses the inputs: such a node is left to the runtime.
    """
    names = [name for name in dict.fromkeys(node.input) if name]
    described = [helper.make_tensor_value_info(n, constants[n].data_type, constants[n].dims) for n in names]
    results = [name for name in node.output if name]
    outputs = [helper.make_empty_tensor_value_info(name) for name in results]
    graph = helper.make_graph([node], "constant", described, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    values = {name: edit.array(constants[name]) for name in names}
    try:
        found = ReferenceEvaluator(model).run(None, values)
    except Exception:  # the evaluator runs each operator's own code, which raises nearly anything
        return None
    return {name: np.asarray(each) for name, each in zip(results, found, strict=True)}
