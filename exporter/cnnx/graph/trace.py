"""Follows tensors from a typed graph to the FP32 graph that it was made from, which has the same names.

What runs a typed graph fuses its nodes, and then few tensors exist. These are compared with the FP32 graph:
`Trace.tensors` are those that usually survive, and `Trace.steps` says what lies between those that did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, helper, numpy_helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.passes.observe import activations

_CONVERSIONS = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
# Operators that only move values or take the largest, so that a builder may quantize before them.
_MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)


def with_outputs(model: ModelProto, tensors: Collection[str]) -> ModelProto:
    """A copy of a graph with more outputs, after its own. The weights are copied once.

    Raises:
        GraphError: it has no such tensor.
    """
    types = edit.value_types(model)
    copy = ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    for name in tensors:
        if name not in types:
            raise GraphError(f"the graph has no tensor {name!r}", hint="name a tensor of the graph")
        if name not in known:
            kind = types[name]
            copy.graph.output.append(helper.make_tensor_value_info(name, kind.elem_type, kind.shape))
    return copy


@dataclass(frozen=True, slots=True)
class Step:
    """A tensor, and what computes it from the tensors compared before it.

    Attributes:
        tensor: a tensor of the FP32 graph.
        nodes: nodes between it and the tensors in `before`, in graph order.
        before: the nearest tensors before it that are compared; empty if none is.
        quantized: tensors that these nodes read in INT8.
    """

    tensor: str
    nodes: tuple[str, ...]
    before: tuple[str, ...]
    quantized: tuple[str, ...]


class Trace:
    """A typed graph and the FP32 graph that it was made from.

    Args:
        source: the FP32 graph.
        typed: the typed or Q/DQ graph.

    Attributes:
        shapes: float activation of both graphs -> its lengths; a length that is not known is None.
    """

    def __init__(self, source: ModelProto, typed: ModelProto) -> None:
        self._source, self._typed = edit.wiring(source.graph), edit.wiring(typed.graph)
        self._places = {node.name: place for place, node in enumerate(typed.graph.node)}
        self._nodes = {node.name: node for node in typed.graph.node}
        types, typed_types = edit.value_types(source), edit.value_types(typed)
        self._inputs = {value.name for value in source.graph.input}
        floats = {name for name in activations(typed) if name in typed_types and typed_types[name].is_float}
        self._order = {
            name: place
            for place, name in enumerate(activations(source))
            if name in floats and name in types and types[name].is_float
        }
        self.shapes = {
            name: tuple(n if isinstance(n, int) else None for n in types[name].shape or ())
            for name in self._order
        }

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors of both graphs that fusion usually leaves: not those that only an activation reads."""
        return tuple(name for name in self._order if name not in self._inputs and not self._is_fused(name))

    def _is_fused(self, name: str) -> bool:
        reader = self._source.only_consumer(name)
        return reader is not None and reader.op_type in edit.ACTIVATIONS

    def steps(self, tensors: Collection[str]) -> tuple[Step, ...]:
        """What computes each of these tensors from the others, in graph order."""
        return tuple(self._step(name, frozenset(tensors)) for name in self._order if name in tensors)

    def _step(self, tensor: str, compared: frozenset[str]) -> Step:
        before: dict[str, None] = {}
        nodes: dict[str, NodeProto] = {}
        pending = [tensor]
        while pending:
            node = self._source.producers.get(pending.pop())
            if node is None or node.name in nodes:
                continue
            nodes[node.name] = node
            for name in node.input:
                if name in compared:
                    before[name] = None
                else:
                    pending.append(name)
        names = sorted(nodes, key=lambda name: self._places.get(name, 0))
        quantized = dict.fromkeys(found for name in names for found in self._read_in_int8(name))
        order = sorted(before, key=lambda name: self._order[name])
        return Step(tensor, tuple(names), tuple(order), tuple(quantized))

    def _read_in_int8(self, node: str) -> Iterator[str]:
        """Activations that a node of the typed graph reads through Q/DQ."""
        for name in self._nodes[node].input if node in self._nodes else ():
            dequantizer = self._typed.producers.get(name)
            if dequantizer is not None and dequantizer.op_type == "DequantizeLinear":
                quantizer = self._typed.producers.get(dequantizer.input[0])
                if quantizer is not None and quantizer.op_type == "QuantizeLinear":
                    yield self.origin(quantizer.input[0])

    def origin(self, tensor: str) -> str:
        """The tensor that a tensor of the typed graph holds in another type, or itself."""
        while tensor not in self._order:
            node = self._typed.producers.get(tensor)
            if node is None or node.op_type not in _CONVERSIONS:
                break
            tensor = node.input[0]
        return tensor

    def named(self, name: str, shape: Sequence[int]) -> str | None:
        """The tensor that a tensor of the typed graph holds, if it has this shape; None if it is another."""
        tensor = self.origin(name)
        return tensor if tensor in self._order and _fits(self.shapes[tensor], shape) else None

    def result_of(self, nodes: Collection[str], shape: Sequence[int], begun: Collection[str]) -> str | None:
        """The tensor that a kernel for these nodes of the typed graph writes; None if that is unclear.

        It is that of the last node whose tensor has this shape, apart from axes of one.

        Args:
            nodes: nodes that the kernel names.
            shape: lengths of what it writes.
            begun: nodes that a later kernel names, too. Behind these, what a kernel writes is no tensor of
                the graph, but a sum without its bias, for example.
        """
        known = sorted((each for each in nodes if each in self._nodes), key=self._places.__getitem__)
        for name in reversed(known):
            if name in begun:
                return None
            for tensor in map(self.origin, self._nodes[name].output):
                if tensor in self._order and _fits(self.shapes[tensor], shape):
                    return tensor
        return None

    def scales(self, tensor: str, nodes: Collection[str]) -> dict[str, float]:
        """Quantized activation -> scale, of those that INT8 values of a tensor may have.

        Args:
            tensor: a tensor of the FP32 graph.
            nodes: nodes of the kernel that writes the values. If one of them quantizes, its scale is meant,
                else that of what quantizes the tensor, which a builder may have moved before other nodes.
        """
        quantizers = [self._nodes[each] for each in nodes if each in self._nodes]
        quantizers = [each for each in quantizers if each.op_type == "QuantizeLinear"]
        found = quantizers or [*self._quantizers_of(tensor)]
        by_tensor = {
            self.origin(each.input[0]): float(
                numpy_helper.to_array(self._typed.initializers[each.input[1]]).reshape(-1)[0]
            )
            for each in found
            if each.input[1] in self._typed.initializers
        }
        return {tensor: by_tensor[tensor]} if tensor in by_tensor else by_tensor

    def _quantizers_of(self, tensor: str) -> Iterator[NodeProto]:
        """What quantizes a tensor, or what only moves its values."""
        pending, seen = [tensor], {tensor}
        while pending:
            for node in self._typed.consumers.get(pending.pop(), ()):
                if node.op_type == "QuantizeLinear":
                    yield node
                elif node.op_type in _MOVES | _CONVERSIONS:
                    pending += (name for name in node.output if name not in seen)
                    seen.update(node.output)


def _fits(known: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether two shapes are the same, apart from the batch and from axes of one."""
    first, second = ([n for n in lengths[1:] if n != 1] for lengths in (known, shape))
    return len(first) == len(second) and all(a in (None, b) for a, b in zip(first, second, strict=True))
