"""Memory prediction for a graph that is not loaded yet."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from onnx import ModelProto, helper

from cnnx.graph.edit import ValueType, wiring
from cnnx.graph.infer import types_at

# Their output is a view of their input; runtimes do not copy it.
_VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class GraphMemory:
    """Predicted memory of a graph at one batch size, in bytes.

    Attributes:
        weights_bytes: constants as stored.
        scratch_bytes: peak of the activations that are alive at the same time.
        io_bytes: inputs and outputs.
    """

    weights_bytes: int
    scratch_bytes: int
    io_bytes: int


def predict_memory(model: ModelProto, batch: int) -> GraphMemory:
    """Predict memory for sequential execution that frees each tensor after its last reader.

    A runtime that fuses nodes needs less. Its libraries, relaid-out copies of weights and kernel workspace
    are not included. Tensors of unknown shape count as 0.

    Args:
        model: graph with a dynamic or fixed batch as its first dimension.
        batch: images per run, for a dynamic batch.
    """
    types, wires = types_at(model, batch), wiring(model.graph)
    weights = sum(_bytes(ValueType(t.data_type, tuple(t.dims))) for t in model.graph.initializer)
    constant = set(wires.initializers)
    ends = {value.name for value in (*model.graph.input, *model.graph.output)} - constant
    held: dict[str, str] = {}  # view -> tensor that owns the memory
    readers: Counter[str] = Counter()
    for node in model.graph.node:
        if constant.issuperset(filter(None, node.input)):
            constant.update(node.output)  # folded when a runtime loads the graph
        elif node.op_type in _VIEWS:
            held[node.output[0]] = held.get(node.input[0], node.input[0])
        readers.update(held.get(name, name) for name in node.input if name)

    def size(name: str) -> int:
        counts = name in types and name not in ends and name not in held and name not in constant
        return _bytes(types[name]) if counts else 0

    alive = most = 0
    for node in model.graph.node:
        alive += sum(size(name) for name in node.output)
        most = max(most, alive)
        unread = [name for name in node.output if not readers[name]]
        for name in (held.get(name, name) for name in node.input if name):
            readers[name] -= 1
            if not readers[name]:
                unread.append(name)
        alive -= sum(size(name) for name in unread)
    return GraphMemory(weights, most, sum(_bytes(types[name]) for name in ends if name in types))


def _bytes(kind: ValueType) -> int:
    """Bytes of a tensor; 0 if its shape is unknown."""
    if kind.lengths is None:
        return 0
    return math.prod(kind.lengths) * int(helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)
