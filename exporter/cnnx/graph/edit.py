"""Reading and small edits of an ONNX graph: who makes what, who takes what, and of which type.

Large models must not be copied without need (VGG-16 holds 553 MB): what asks for types or for a check
works on a `skeleton`, which has the nodes and the small constants but not the weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from cnnx.errors import GraphError

FLOAT = TensorProto.FLOAT
FLOAT16 = TensorProto.FLOAT16
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})

ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Elu", "Tanh"})
"""Operators that follow a layer, value by value: its kernel can take them in."""

# Shapes, axes and scalars that shape inference reads are shorter than this; weights are longer.
_SMALL = 1024


@dataclass(frozen=True, slots=True)
class ValueType:
    """Type of a tensor: a `TensorProto` element type, and a length, name or None for each axis.

    `shape` is None where inference found no rank.
    """

    elem_type: int
    shape: tuple[int | str | None, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of axes, None where it is not known."""
        return None if self.shape is None else len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the elements are of a floating-point type."""
        return self.elem_type in FLOATS


@dataclass(frozen=True, slots=True)
class Wiring:
    """Who makes and who takes each tensor of a graph, at the moment `wiring` was called.

    Attributes:
        producers: tensor -> the node that makes it.
        consumers: tensor -> nodes that read it, in graph order; a node that reads it twice stands twice.
        initializers: name -> constant.
        outputs: names of the graph's outputs.
    """

    producers: dict[str, NodeProto]
    consumers: dict[str, list[NodeProto]]
    initializers: dict[str, TensorProto]
    outputs: frozenset[str]

    def only_consumer(self, tensor: str) -> NodeProto | None:
        """The one node that reads a tensor; None where there are more, none, or the graph puts it out."""
        readers = self.consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None


def wiring(graph: GraphProto) -> Wiring:
    """Index a graph. The index holds references: it is stale after the graph is edited."""
    consumers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            if name:
                consumers[name].append(node)
    return Wiring(
        producers={name: node for node in graph.node for name in node.output if name},
        consumers=dict(consumers),
        initializers=initializers(graph),
        outputs=frozenset(value.name for value in graph.output),
    )


def initializers(graph: GraphProto) -> dict[str, TensorProto]:
    """Constants of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def data_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The graph's inputs that no initializer fills (old exporters list weights as inputs too)."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute as plain Python (str, int, float, list, TensorProto), or the default."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def weight_axis(node: NodeProto, constants: Mapping[str, TensorProto]) -> int | None:
    """Axis of a node's constant weight (its second input) along its outputs; None without such.

    Weighted nodes are Conv (axis 0), Gemm (0 with transB, else 1) and MatMul with a matrix (1).
    """
    weight = constants.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.data_type not in FLOATS or attribute(node, "transA", 0):
        return None
    if node.op_type == "MatMul":
        return 1 if len(weight.dims) == 2 else None
    return {"Conv": 0, "Gemm": 0 if attribute(node, "transB", 0) else 1}.get(node.op_type)


def small_conv(conv: NodeProto, weight_shape: Sequence[int], *, first: bool) -> str | None:
    """Size in words of a convolution too small to gain from INT8; None for a large one.

    The thresholds are those of NVIDIA's TensorRT Model Optimizer (onnx/quantization).

    Args:
        weight_shape: outputs, inputs of a group, kernel.
        first: it reads the graph's input.
    """
    outputs, per_group, *kernel = weight_shape
    group = attribute(conv, "group", 1)
    if group > 1:
        large = outputs % 8 == 0 and min(kernel) >= 3
    else:
        aligned = outputs % 8 == 0 or per_group % 8 == 0
        large = aligned and (max(outputs, per_group) >= 16 or first)
    groups = f", {group} groups" if group > 1 else ""
    size = f"{per_group * group} channels in, {outputs} out, kernel {'x'.join(map(str, kernel))}{groups}"
    return None if large else size


def label(node: NodeProto) -> str:
    """How messages call a node: its name, or its operator and first output where it has none."""
    return node.name or f"{node.op_type} -> {next(iter(node.output), '?')}"


def array(tensor: TensorProto) -> NDArray[Any]:
    """A constant's values, read-only where they lie in `raw_data`.

    Reading `raw_data` copies the bytes once (protobuf gives no view): take one tensor at a time.
    """
    values: NDArray[Any] = numpy_helper.to_array(tensor)
    return values


def tensor_from_array(name: str, values: NDArray[Any]) -> TensorProto:
    """An initializer of the array's type and shape, kept as `raw_data`."""
    return numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


class Names:
    """Hands out names that a graph does not use yet, the same ones for the same graph."""

    def __init__(self, graph: GraphProto) -> None:
        self._taken = {tensor.name for tensor in graph.initializer}
        self._taken.update(value.name for value in graph.input)
        for node in graph.node:
            self._taken.update((node.name, *node.output))

    def fresh(self, stem: str) -> str:
        """`stem` itself where it is free, else with the first free number."""
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name


def shell(model: ModelProto) -> ModelProto:
    """A new model with the versions, metadata, inputs and outputs of this one, and no nodes or constants."""
    empty = ModelProto(opset_import=model.opset_import, metadata_props=model.metadata_props)
    for name in ("ir_version", "producer_name", "producer_version", "doc_string"):
        if model.HasField(name):
            setattr(empty, name, getattr(model, name))
    empty.graph.name = model.graph.name
    empty.graph.input.extend(model.graph.input)
    empty.graph.output.extend(model.graph.output)
    return empty


def skeleton(model: ModelProto) -> ModelProto:
    """A new model with the same nodes, in which large constants are graph inputs of their type and shape."""
    bones = shell(model)
    bones.graph.node.extend(model.graph.node)
    listed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) <= _SMALL:
            bones.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            bones.graph.input.append(value)
    return bones


def value_types(model: ModelProto) -> dict[str, ValueType]:
    """Type of every tensor that shape inference reaches: inputs, constants, activations, outputs.

    Raises:
        GraphError: the graph contradicts itself (a rank, a type or a length).
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(model), strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        what = f"the graph's shapes do not fit: {first_line(error)}"
        raise GraphError(what, where=model.graph.name) from None
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {value.name: value_type(value) for value in values}
    found.update((t.name, ValueType(t.data_type, tuple(t.dims))) for t in model.graph.initializer)
    return found


def value_type(value: ValueInfoProto) -> ValueType:
    """Type that an input, an output or a `value_info` entry declares."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type, None)
    return ValueType(tensor.elem_type, tuple(_length(dim) for dim in tensor.shape.dim))


def _length(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None


def first_line(error: Exception) -> str:
    """What a vendor's exception says, without its stack of context."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check(model: ModelProto) -> None:
    """Let onnx's checker and shape inference judge the graph, without its large weights. Edits nothing.

    Raises:
        GraphError: the graph breaks the ONNX specification; the message is the checker's.
    """
    try:
        onnx.checker.check_model(skeleton(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        what = f"the graph breaks the ONNX specification: {first_line(error)}"
        raise GraphError(what, where=model.graph.name) from None


def opset(model: ModelProto) -> int:
    """Version of the standard operator set that a model asks for; 0 where it asks for none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Give a graph these nodes in place of its own. Edits in place; the weights are not touched."""
    kept = list(nodes)
    fresh = GraphProto()
    fresh.node.extend(kept)
    del graph.node[:]
    graph.node.extend(fresh.node)


def drop_initializers(graph: GraphProto, names: Iterable[str]) -> int:
    """Remove constants by name, and the inputs that list them. Edits in place; returns how many went."""
    gone = set(names)
    places = [place for place, tensor in enumerate(graph.initializer) if tensor.name in gone]
    for place in reversed(places):
        del graph.initializer[place]  # by place: remove() would compare the weights byte by byte
    for place in reversed([p for p, value in enumerate(graph.input) if value.name in gone]):
        del graph.input[place]
    return len(places)


def rename_input(nodes: Sequence[NodeProto], old: str, new: str) -> None:
    """Let every node that reads `old` read `new`. Edits in place."""
    for node in nodes:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
