"""Helpers to read and edit ONNX graphs: producers, consumers, types and names.

Large models must not be copied needlessly (VGG-16 has 553 MB of weights). Type inference and checks therefore
work on a `skeleton`, which has the nodes and small constants but not the weights.
"""

from __future__ import annotations

import re
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
"""Elementwise operators that can be fused into the kernel of the layer before them."""

DAMAGED = "the file is damaged: copy it again, or export the model again"
_EXPORT_AGAIN = "export the model again; onnx.checker.check_model(path, full_check=True) shows all details"
# Where onnx's checker and shape inference name what they report.
_LOCATIONS = (
    ("node", re.compile(r"node name: ([^)\n]+)\)")),
    ("node", re.compile(r"[Nn]ame: (\S.*?) OpType")),
    ("tensor", re.compile(r"tensor name: ([^)\n]+)\)")),
)
# Shapes, axes and scalars that shape inference needs have fewer elements than this; weights have more.
_SMALL = 1024


@dataclass(frozen=True, slots=True)
class ValueType:
    """Type of a tensor: a `TensorProto` element type, and a length, name or None per axis.

    `shape` is None if the rank is unknown.
    """

    elem_type: int
    shape: tuple[int | str | None, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of axes, or None if unknown."""
        return None if self.shape is None else len(self.shape)

    @property
    def lengths(self) -> tuple[int, ...] | None:
        """Shape if the length of every axis is known, else None."""
        known = tuple(length for length in self.shape or () if isinstance(length, int))
        return known if len(known) == self.rank else None

    @property
    def is_float(self) -> bool:
        """Whether the element type is a floating-point type."""
        return self.elem_type in FLOATS


@dataclass(frozen=True, slots=True)
class Wiring:
    """Producers and consumers of the tensors of a graph at the time of the call to `wiring`.

    Attributes:
        producers: tensor -> node that produces it.
        consumers: tensor -> nodes that read it, in graph order; a node is listed once per read.
        initializers: name -> constant.
        outputs: names of the graph's outputs.
    """

    producers: dict[str, NodeProto]
    consumers: dict[str, list[NodeProto]]
    initializers: dict[str, TensorProto]
    outputs: frozenset[str]

    def only_consumer(self, tensor: str) -> NodeProto | None:
        """The only node that reads a tensor; None for several, none, or a graph output."""
        readers = self.consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None


def wiring(graph: GraphProto) -> Wiring:
    """Index the producers and consumers of a graph. Edits of the graph invalidate the index."""
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
    """Initializers of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def data_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Graph inputs without an initializer; old exporters also list weights as inputs."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node attribute as str, int, float, list or TensorProto, or the default."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def weight_axis(node: NodeProto, constants: Mapping[str, TensorProto]) -> int | None:
    """Output-channel axis of a node's constant weight (its second input); None without one.

    Weighted nodes are Conv (axis 0), Gemm (0 with transB, else 1) and MatMul with a 2-D weight (1).
    """
    weight = constants.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.data_type not in FLOATS or attribute(node, "transA", 0):
        return None
    if node.op_type == "MatMul":
        return 1 if len(weight.dims) == 2 else None
    return {"Conv": 0, "Gemm": 0 if attribute(node, "transB", 0) else 1}.get(node.op_type)


def small_conv(conv: NodeProto, weight_shape: Sequence[int], *, first: bool) -> str | None:
    """Description of a convolution that is too small to gain from INT8; None for a larger one.

    The thresholds are those of NVIDIA's TensorRT Model Optimizer (onnx/quantization).

    Args:
        weight_shape: output channels, input channels per group, kernel.
        first: whether it reads the graph's input.
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
    """Name of a node for messages; its operator and first output if it has no name."""
    return node.name or f"{node.op_type} -> {next(iter(node.output), '?')}"


def array(tensor: TensorProto) -> NDArray[Any]:
    """Values of a constant; read-only if stored in `raw_data`.

    Reading `raw_data` copies the bytes, as protobuf has no views, so read one tensor at a time.

    Raises:
        GraphError: it does not have the number of values of its shape.
    """
    try:
        if any(length < 0 for length in tensor.dims):
            raise ValueError("a length is negative")  # NumPy would choose one that fits
        values: NDArray[Any] = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        what = f"the weight does not match its shape {list(tensor.dims)}: {first_line(error)}"
        raise GraphError(what, where=f"weight {tensor.name}", hint=DAMAGED) from None
    return values


def tensor_from_array(name: str, values: NDArray[Any]) -> TensorProto:
    """Initializer with the type and shape of an array, stored as `raw_data`."""
    return numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


class Names:
    """Generates unused names for a graph, deterministically."""

    def __init__(self, graph: GraphProto) -> None:
        self._taken = {tensor.name for tensor in graph.initializer}
        self._taken.update(value.name for value in graph.input)
        for node in graph.node:
            self._taken.update((node.name, *node.output))

    def fresh(self, stem: str) -> str:
        """`stem` if unused, else `stem` with the first unused number."""
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name


def shell(model: ModelProto) -> ModelProto:
    """A new model with the same versions, metadata, inputs and outputs, but no nodes or constants."""
    empty = ModelProto(opset_import=model.opset_import, metadata_props=model.metadata_props)
    for name in ("ir_version", "producer_name", "producer_version", "doc_string"):
        if model.HasField(name):
            setattr(empty, name, getattr(model, name))
    empty.graph.name = model.graph.name
    empty.graph.input.extend(model.graph.input)
    empty.graph.output.extend(model.graph.output)
    return empty


def skeleton(model: ModelProto) -> ModelProto:
    """A new model with the same nodes, in which large constants are replaced by typed graph inputs."""
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

    Lengths that depend on a free batch, such as those of images cut into patches, are unknown;
    `cnnx.graph.infer.types_at` knows them for a number of images.

    Raises:
        GraphError: ranks, types or lengths contradict each other.
    """
    bones = skeleton(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(bones, strict_mode=True, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        what = f"the shapes in the graph contradict each other: {first_line(error)}"
        raise GraphError(what, where=_location(error, model), hint=_EXPORT_AGAIN) from None
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {value.name: value_type(value) for value in values}
    found.update((t.name, ValueType(t.data_type, tuple(t.dims))) for t in model.graph.initializer)
    return found


def value_type(value: ValueInfoProto) -> ValueType:
    """Declared type of an input, output or `value_info` entry."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type, None)
    return ValueType(tensor.elem_type, tuple(_length(dim) for dim in tensor.shape.dim))


def _length(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None


def type_name(elem_type: int) -> str:
    """Name of an element type for messages, also of one that ONNX does not have."""
    known = elem_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(elem_type)) if known else f"the unknown type {elem_type}"


def first_line(error: Exception) -> str:
    """First non-empty line of an exception message, without the context that follows."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check(model: ModelProto) -> None:
    """Run onnx's checker and shape inference on the graph without its large weights. Edits nothing.

    Raises:
        GraphError: the graph violates the ONNX specification; the message is the checker's.
    """
    try:
        onnx.checker.check_model(skeleton(model), full_check=True)
    # ValueError: a type that ONNX does not have, or a name that is not UTF-8.
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        what = f"the graph violates the ONNX specification: {first_line(error)}"
        raise GraphError(what, where=_location(error, model), hint=_EXPORT_AGAIN) from None


def _location(error: Exception, model: ModelProto) -> str:
    """The node or tensor that a message of onnx names, or else the graph."""
    for kind, pattern in _LOCATIONS:
        if found := pattern.search(str(error)):
            return f"{kind} {found[1]}"
    return f"graph {model.graph.name}"


def opset(model: ModelProto) -> int:
    """Version of the standard operator set that a model imports; 0 for none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Replace the nodes of a graph in place, without touching its weights."""
    kept = list(nodes)
    fresh = GraphProto()
    fresh.node.extend(kept)
    del graph.node[:]
    graph.node.extend(fresh.node)


def drop_unread_nodes(graph: GraphProto) -> int:
    """Remove nodes on which no output of the graph depends. Edits in place; returns their number."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    removed = len(graph.node) - len(kept)
    if removed:
        replace_nodes(graph, reversed(kept))
    return removed


def drop_unread_initializers(graph: GraphProto) -> int:
    """Remove initializers that no node and no output reads. Edits in place; returns their number."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    return drop_initializers(graph, [tensor.name for tensor in graph.initializer if tensor.name not in read])


def drop_initializers(graph: GraphProto, names: Iterable[str]) -> int:
    """Remove initializers by name, also from the graph inputs. Edits in place; returns their number."""
    dropped = set(names)
    indices = [index for index, tensor in enumerate(graph.initializer) if tensor.name in dropped]
    for index in reversed(indices):
        del graph.initializer[index]  # remove() would compare the weights byte by byte
    for index in reversed([i for i, value in enumerate(graph.input) if value.name in dropped]):
        del graph.input[index]
    return len(indices)


def rename_input(nodes: Sequence[NodeProto], old: str, new: str) -> None:
    """Rename an input of nodes from `old` to `new`. Edits in place."""
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
