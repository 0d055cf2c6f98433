"""Removes the Q/DQ of a file that is quantized already, and notes its scales by tensor.

What is left is the FP32 network, so that every later pass sees an ordinary one. A pair that represents no
negative value does the work of a ReLU, which ONNX Runtime's quantizer then drops: it becomes a Clip.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.constants import evaluate
from cnnx.graph.load import QDQ_FORMAT

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_INTEGER_OPS = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)
_ENDS: dict[int, tuple[int, int]] = {TensorProto.INT8: (-128, 127), TensorProto.UINT8: (0, 255)}
# What exporters put between a constant and the scale or zero point that it becomes.
_CARRIED = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_JOIN = frozenset({"Add", "Concat", "Mul"})
# Operators whose outputs are not negative, and those that keep their inputs' signs.
_NOT_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax"})
_KEEP_SIGN = _CARRIED | frozenset(
    {"Add", "AveragePool", "Concat", "DepthToSpace", "Dropout", "Gather", "GlobalAveragePool", "MaxPool"}
    | {"GlobalMaxPool", "Mul", "ReduceMean", "Slice", "SpaceToDepth", "Split", "Transpose"}
)
_INT8_HINT = "quantize to INT8, with one scale for an activation, and one or one per channel for a weight"


@dataclass(frozen=True, slots=True)
class WeightScale:
    """The scale of a weight, (1,) or one per index of `axis`.

    `exact`: its integers, less the zero point, fit INT8 with zero point 0.
    """

    scale: NDArray[np.float64]
    axis: int
    exact: bool


@dataclass(slots=True)
class Taken:
    """Scales of the Q/DQ that were removed, by tensor.

    Attributes:
        ranges: activation -> |x| that maps to 127, for each Q/DQ pair that read it.
        weights: constant -> its scales, for each Q/DQ pair or DQ that read it.
        asymmetric: activations whose zero point is not the middle of the integers.
        by_channel: activations with several scales in one pair.
        clipped: outputs of pairs that became a Clip.
    """

    ranges: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    weights: dict[str, list[WeightScale]] = field(default_factory=lambda: defaultdict(list))
    asymmetric: set[str] = field(default_factory=set)
    by_channel: set[str] = field(default_factory=set)
    clipped: set[str] = field(default_factory=set)


def take_scales(model: ModelProto) -> Taken | None:
    """Remove every Q/DQ, in place: activations and FP32 weights as they were, stored integers as floats.

    Args:
        model: a graph of any opset, whose Constant nodes are initializers.

    Returns:
        the scales; None if the graph has no Q/DQ.

    Raises:
        GraphError: integer operators, a type other than INT8 and UINT8, scales that are not constant,
            positive and finite, scales of blocks, or a Q without its DQ.
    """
    for node in model.graph.node:
        if node.op_type in _INTEGER_OPS:
            raise GraphError(
                f"{node.op_type} computes with integers, which TensorRT expects as Q/DQ around a float layer",
                where=f"node {edit.label(node)}",
                hint=QDQ_FORMAT,
            )
    if not any(node.op_type in (_QUANTIZE, _DEQUANTIZE) for node in model.graph.node):
        return None
    _check_nodes(model)
    return _Remover(model).run()


def _check_nodes(model: ModelProto) -> None:
    """Raise for a Q or DQ with missing inputs or attributes of a wrong type."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = model.ir_version, {"": edit.opset(model)}
    for node in model.graph.node:
        if node.op_type in (_QUANTIZE, _DEQUANTIZE):
            try:
                onnx.checker.check_node(node, context)
            except onnx.checker.ValidationError as error:
                raise _refusal(node, edit.first_line(error), "export the model again") from None


@dataclass(frozen=True, slots=True)
class _Grid:
    """The values that a Q or DQ represents: scale * (integer - zero)."""

    scale: NDArray[np.float64]
    zero: NDArray[np.int64]
    kind: int

    @property
    def centered(self) -> bool:
        """Whether the integers, less the zero point, are those of INT8 with zero point 0."""
        return bool((_ENDS[self.kind][1] - self.zero == 127).all())

    @property
    def positive(self) -> bool:
        """Whether it represents no negative value."""
        return bool((self.zero == _ENDS[self.kind][0]).all())

    @property
    def range(self) -> float:
        """|x| that maps to 127 in the smallest symmetric range that includes all values."""
        low, high = (end - self.zero for end in _ENDS[self.kind])
        steps = np.full(1, 127) if self.centered else np.maximum(-low, high)
        return float((self.scale * steps).max())


class _Remover:
    """Rebuilds the graph node by node, without Q/DQ."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._graph = edit.wiring(model.graph)
        self._constants = {**self._graph.initializers, **_carried(model, self._graph.initializers)}
        self._names = edit.Names(model.graph)
        self._kept: list[NodeProto] = []
        self._renamed: dict[str, str] = {}
        self._quantized: dict[str, str] = {}  # output of a Q -> its input, or the Clip of that
        self._not_negative = {value.name for value in edit.data_inputs(model.graph)}  # or not to be clipped
        self._read: set[str] = set()
        self._taken = Taken()

    def run(self) -> Taken:
        """Remove the Q/DQ; returns their scales."""
        for node in self._model.graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = self._renamed.get(name, name) if name else ""
            if node.op_type == _QUANTIZE:
                self._quantize(node)
            elif node.op_type == _DEQUANTIZE:
                self._dequantize(node)
            else:
                self._keep(node)
        graph = self._model.graph
        edit.replace_nodes(graph, self._kept)
        still = {name for node in graph.node for name in node.input} | self._graph.outputs
        edit.drop_initializers(graph, self._read - still)
        del graph.value_info[:], graph.quantization_annotation[:]
        return self._taken

    def _keep(self, node: NodeProto) -> None:
        self._kept.append(node)
        bound = node.input[1] if node.op_type == "Clip" and len(node.input) > 1 else ""
        lowest = edit.array(self._constants[bound]) if bound in self._constants else -math.inf
        activations = [name for name in node.input[: None if node.op_type in _JOIN else 1] if name]
        if (
            node.op_type in _NOT_NEGATIVE
            or (node.op_type == "Clip" and np.all(edit.attribute(node, "min", lowest) >= np.float32(0)))
            or (node.op_type in _KEEP_SIGN and self._not_negative.issuperset(activations))
        ):
            self._not_negative.update(node.output)

    def _quantize(self, node: NodeProto) -> None:
        grid, output = self._grid(node), node.output[0]
        readers = self._graph.consumers.get(output, [])
        if not readers or output in self._graph.outputs or any(r.op_type != _DEQUANTIZE for r in readers):
            others = sorted({r.op_type for r in readers if r.op_type != _DEQUANTIZE})
            found = f"{others[0]} reads its integers" if others else "no DequantizeLinear reads its integers"
            raise _refusal(node, found, "put a DequantizeLinear after every QuantizeLinear")
        for reader in readers:
            other = self._grid(reader, kind=grid.kind)
            if not (np.array_equal(other.scale, grid.scale) and np.array_equal(other.zero, grid.zero)):
                what = "its scale or zero point is not that of its QuantizeLinear"
                raise _refusal(reader, what, "give both the same scale and zero point")
        tensor = node.input[0]
        self._quantized[output] = tensor
        if tensor in self._graph.initializers:
            self._taken.weights[tensor].append(WeightScale(grid.scale, _axis(node), grid.centered))
            return
        if grid.positive and tensor not in self._not_negative:
            tensor = self._quantized[output] = self._clip(node, grid.range)
        self._taken.ranges[tensor].append(grid.range)
        if not grid.centered:
            self._taken.asymmetric.add(tensor)
        if grid.scale.size > 1:
            self._taken.by_channel.add(tensor)

    def _clip(self, node: NodeProto, highest: float) -> str:
        """Add a Clip in place of a pair that represents 0..highest; returns its output."""
        output = self._names.fresh(f"{node.input[0]}.clipped")
        bounds = {"min": 0.0, "max": highest}
        clip = helper.make_node("Clip", [node.input[0]], [output], output)
        if edit.opset(self._model) < 11:
            clip.attribute.extend(helper.make_attribute(key, value) for key, value in bounds.items())
        else:
            for key, value in bounds.items():
                clip.input.append(self._names.fresh(f"{output}.{key}"))
                tensor = edit.tensor_from_array(clip.input[-1], np.array(value, self._float(node)))
                self._model.graph.initializer.append(tensor)
        self._kept.append(clip)
        self._not_negative.add(output)
        self._taken.clipped.add(output)
        return output

    def _dequantize(self, node: NodeProto) -> None:
        source, output = node.input[0], node.output[0]
        if source in self._quantized:
            tensor = self._quantized[source]
            if output in self._graph.outputs:
                name = self._names.fresh(f"{output}.unquantized")
                self._kept.append(helper.make_node("Identity", [tensor], [output], name))
            else:
                self._renamed[output] = tensor
            return
        if source not in self._graph.initializers:
            what = "its input comes from no QuantizeLinear and is not a constant"
            raise _refusal(node, what, "put a QuantizeLinear before every DequantizeLinear of an activation")
        self._store(node, self._graph.initializers[source])

    def _store(self, node: NodeProto, stored: TensorProto) -> None:
        """Add a constant stored as integers as floats, under the name that the DQ gave it."""
        grid = self._grid(node, kind=stored.data_type, integers=True)
        values, axis = edit.array(stored).astype(np.int64), _axis(node)
        scale, zero = (_along(each, values, axis, node) for each in (grid.scale, grid.zero))
        centered = values - zero
        floats = (centered.astype(np.float32) * scale.astype(np.float32)).astype(self._float(node))
        self._model.graph.initializer.append(edit.tensor_from_array(node.output[0], floats))
        if stored.data_type in _ENDS:
            exact = bool(centered.min(initial=0) >= -128 and centered.max(initial=0) <= 127)
            self._taken.weights[node.output[0]].append(WeightScale(grid.scale, axis, exact))

    def _float(self, node: NodeProto) -> Any:
        """NumPy type of a node's scale, which is that of its output."""
        return edit.array(self._constants[node.input[1]]).dtype

    def _grid(self, node: NodeProto, *, kind: int = 0, integers: bool = False) -> _Grid:
        """The grid of a Q or DQ.

        Args:
            node: the node.
            kind: element type of the integers; 0: as the node states.
            integers: whether INT32, the type of a bias, is accepted.

        Raises:
            GraphError: it is not one that can be kept or removed.
        """
        given = [name for name in node.input[1:3] if name]
        missing = [name for name in given if name not in self._constants]
        if missing or not given or not node.input[1]:
            what = f"its scale or zero point {missing[0]!r} is not constant" if missing else "it has no scale"
            raise _refusal(node, what, "export the network with fixed scales, in evaluation mode")
        self._read.update((*node.input[:1], *given))
        stored = [self._constants[name] for name in given]
        if stored[0].data_type not in edit.FLOATS:
            raise _refusal(node, "its scale is not a floating-point number", _INT8_HINT)
        if kind and stored[1:] and stored[1].data_type != kind:
            raise _refusal(node, "its zero point does not have the type of its integers", _INT8_HINT)
        kind = kind or (stored[1].data_type if stored[1:] else 0)
        kind = kind or edit.attribute(node, "output_dtype", 0) or TensorProto.UINT8
        if kind not in _ENDS and not (integers and kind == TensorProto.INT32):
            raise _refusal(node, f"it quantizes to {edit.type_name(kind)}", _INT8_HINT)
        scale = edit.array(stored[0]).astype(np.float64)
        if scale.ndim > 1 or edit.attribute(node, "block_size", 0):
            raise _refusal(node, "it has a scale for each block of values", _INT8_HINT)
        if not (scale.size and np.isfinite(scale).all() and (scale > 0).all()):
            bad = scale[~(np.isfinite(scale) & (scale > 0))].reshape(-1)
            what = f"its scale is {bad[0]:g}" if bad.size else "its scale is empty"
            raise _refusal(node, what, "make every scale positive and finite: train or calibrate it again")
        zero = edit.array(stored[1]).astype(np.int64).reshape(-1) if stored[1:] else np.zeros(1, np.int64)
        if zero.size not in (1, scale.size):
            raise _refusal(node, f"it has {scale.size} scales and {zero.size} zero points", _INT8_HINT)
        return _Grid(scale.reshape(-1), zero, kind)


def _carried(model: ModelProto, constants: dict[str, TensorProto]) -> dict[str, TensorProto]:
    """Scales and zero points that are constants behind operators such as Cast."""
    pairs = [node for node in model.graph.node if node.op_type in (_QUANTIZE, _DEQUANTIZE)]
    needed = {name for node in pairs for name in node.input[1:3]}
    chosen = []
    for node in reversed(model.graph.node):
        if node.op_type in _CARRIED and not needed.isdisjoint(node.output):
            chosen.append(node)
            needed.update(node.input)
    found: dict[str, TensorProto] = {}
    for node in reversed(chosen):
        known = {name: each for name in node.input if (each := found.get(name, constants.get(name)))}
        if all(name in known for name in node.input if name):
            values = evaluate(node, known, edit.opset(model)) or {}
            found |= {name: edit.tensor_from_array(name, each) for name, each in values.items()}
    return found


def _axis(node: NodeProto) -> int:
    return int(edit.attribute(node, "axis", 1))


def _along(each: NDArray[Any], values: NDArray[Any], axis: int, node: NodeProto) -> NDArray[Any]:
    """One value, or one per index of an axis, in a shape that broadcasts with a constant's values."""
    if each.size == 1:
        return each.reshape(())
    if not -values.ndim <= axis < values.ndim or values.shape[axis] != each.size:
        raise _refusal(node, f"{each.size} scales do not fit axis {axis} of {list(values.shape)}", _INT8_HINT)
    return each.reshape([-1 if index == axis % values.ndim else 1 for index in range(values.ndim)])


def _refusal(node: NodeProto, what: str, hint: str) -> GraphError:
    return GraphError(f"{node.op_type}: {what}", where=f"node {edit.label(node)}", hint=hint)


def notes_on(taken: Taken, *, requantized: Sequence[str]) -> tuple[str, ...]:
    """Notes for the user on scales that could not be kept as they are."""
    several = [name for name, found in taken.ranges.items() if len(set(found)) > 1]
    counted = (
        ("with a zero point", taken.asymmetric, "TensorRT supports none, so their ranges became symmetric"),
        ("with several scales", several, "the largest is used"),
        ("with one scale per channel", taken.by_channel, "the largest is used"),
    )
    notes = [
        f"Activations {what} in the file: {len(found)}; {then}." for what, found, then in counted if found
    ]
    if requantized:
        notes.append(
            f"Weights whose integers TensorRT does not take: {len(requantized)} "
            f"({', '.join(requantized[:3])}); they were quantized again, with one scale per output channel."
        )
    return tuple(notes)
