"""The view of a graph that lint rules share: its wiring, types and common queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.graph.edit import ValueType, Wiring, array, opset
from cnnx.graph.inspect import constant_behind, dequantizer, reads_int8, weighted_nodes

Fault = tuple[str, str, str]
"""The node or tensor at fault, what is wrong, and a hint."""

_STANDARD = ("", "ai.onnx")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class View:
    """A graph under inspection. `types` has no entry for tensors that shape inference did not reach."""

    model: ModelProto
    wires: Wiring
    types: Mapping[str, ValueType]

    def nodes(self, *ops: str) -> list[NodeProto]:
        """Nodes of these operators, in graph order."""
        return [node for node in self.model.graph.node if node.op_type in ops]

    def is_standard(self, node: NodeProto) -> bool:
        """Whether the opset of the graph has this operator."""
        return node.domain in _STANDARD and onnx.defs.has(node.op_type, max(opset(self.model), 1))

    def values(self, name: str) -> NDArray[Any] | None:
        """Values of an initializer or Constant node; None for data and external constants.

        Raises:
            GraphError: the values do not match the shape.
        """
        tensor, producer = self.wires.initializers.get(name), self.wires.producers.get(name)
        if producer is not None and producer.op_type == "Constant":
            value = helper.get_attribute_value(producer.attribute[0])
            if not isinstance(value, TensorProto):
                return np.asarray(value)
            tensor = value
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return array(tensor)

    def elem_type(self, name: str) -> int:
        """Element type of a tensor, or UNDEFINED (0) if unknown."""
        return self.types[name].elem_type if name in self.types else TensorProto.UNDEFINED

    def shape(self, name: str) -> tuple[int | str | None, ...]:
        """Shape of a tensor, or () if its rank is unknown."""
        return (self.types[name].shape or ()) if name in self.types else ()

    def scale(self, node: NodeProto) -> NDArray[Any] | None:
        """Scale of a Q or DQ node; None if it is not constant."""
        return self.values(node.input[1])

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is a constant or a conversion of one, such as a weight."""
        return constant_behind(self.wires, name) is not None

    def readers(self, node: NodeProto, *ops: str) -> list[NodeProto]:
        """Nodes of these operators that read a node's first output."""
        return [reader for reader in self.wires.consumers.get(node.output[0], []) if reader.op_type in ops]

    def reads_int8(self, node: NodeProto) -> bool:
        """Whether the operands of a node are dequantized from INT8."""
        return reads_int8(node, self.wires, self.types)

    def int8_convs(self) -> list[NodeProto]:
        """Convolutions that TensorRT runs in INT8."""
        return [
            n for n in weighted_nodes(self.model, self.wires) if n.op_type == "Conv" and self.reads_int8(n)
        ]

    def weight_shape(self, node: NodeProto) -> tuple[int, ...]:
        """Shape of a weighted node's constant weight: output channels, channels per group, kernel."""
        tensor = constant_behind(self.wires, node.input[1])
        return tuple(tensor.dims) if tensor is not None else ()

    def dequantizer(self, tensor: str) -> NodeProto | None:
        """The DequantizeLinear that produces a tensor, or None."""
        return dequantizer(self.wires, tensor)
