"""Brings opset, IR version, inputs and optional outputs into one form."""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.load import IR_VERSION, OPSET, normalise_version

OLDEST_OPSET = 7  # before it, operators broadcast in ways that onnx's converter does not rewrite
_KEPT_OPSETS = (OPSET, OPSET + 1)  # TensorRT 10.3, of JetPack 6, reads both


def convert_version(model: ModelProto) -> None:
    """Convert to opset 19 or 20, and to IR version 10. Edits in place.

    Raises:
        GraphError: the opset is too old, or onnx cannot convert an operator.
    """
    found = edit.opset(model)
    if found < OLDEST_OPSET:
        raise GraphError(
            f"opset {found} is older than {OLDEST_OPSET}, the oldest that can be converted",
            where=f"graph {model.graph.name}",
            hint=f"export the model again with opset {OPSET}",
        )
    normalise_version(model, found if found in _KEPT_OPSETS else _KEPT_OPSETS[-1], IR_VERSION)


def drop_listed_constants(model: ModelProto) -> None:
    """Drop graph inputs that are initializers, as IR versions before 4 list them. Edits in place."""
    constants = edit.initializers(model.graph)
    if constants.keys() >= {value.name for value in model.graph.input}:
        return  # an image with a default value: `input_shape` reports it
    for index in reversed(range(len(model.graph.input))):
        if model.graph.input[index].name in constants:
            del model.graph.input[index]
    model.ir_version = IR_VERSION


def drop_unread_outputs(model: ModelProto) -> None:
    """Drop optional outputs that nothing reads, such as the indices of MaxPool. Edits in place."""
    graph, version = edit.wiring(model.graph), edit.opset(model)
    for node in model.graph.node:
        for index in reversed(range(1, len(node.output))):
            name = node.output[index]
            if name in graph.consumers or name in graph.outputs or not _is_optional(node, index, version):
                break
            del node.output[index]


def _is_optional(node: NodeProto, index: int, version: int) -> bool:
    if edit.attribute(node, "training_mode", 0):
        return False  # onnx requires the statistics of a BatchNormalization that computes them
    formal = onnx.defs.get_schema(node.op_type, version).outputs
    return index < len(formal) and formal[index].option == onnx.defs.OpSchema.FormalParameterOption.Optional
