"""INT8 written into the graph: QuantizeLinear and DequantizeLinear where TensorRT wants them.

Symmetric throughout: x is stood for by q = round(x / scale) with zero point 0, and a range by -127..127. What
an activation has beyond its range is clipped to 127 or, so is QuantizeLinear, to -128.
Activations have one scale a tensor, weights one an output channel. Biases stay float: TensorRT refuses
INT32 ones. Weights are stored as INT8 and only dequantized, so the file shrinks with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.passes.correction import mean_output_error
from cnnx.graph.policy.placement import LayerPlan, quantized_uses
from cnnx.graph.policy.rules import SCALE_FLOORS
from cnnx.options import Scales

LEVELS = 127  # -128 is left unused, so that the range is symmetric

_TYPES: dict[str, type[np.floating[Any]]] = {"fp16": np.float16, "fp32": np.float32}

_FP16_MAX = float(np.finfo(np.float16).max)
# Largest slice of weights that is quantized at a time, in elements: bounds the copies made on the way.
_SLICE = 1 << 22


def scales_from_amax(amax: NDArray[Any], *, scales: Scales) -> NDArray[np.float32]:
    """Scales that stand for ranges: amax / 127, rounded up to the type they will be written in.

    Rounded up, so that the range itself never saturates, and before anything is quantized with it, so
    that writing the scale changes nothing any more. A range of zero (a dead channel) gets 1: any positive
    scale gives back its zeros, and TensorRT refuses a scale of 0.

    Args:
        amax: largest absolute values, any shape, at least 0.
        scales: type they will be written in.

    Returns:
        float32 values of the same shape, each representable in that type; infinity where it ends below.
    """
    kind = _TYPES[scales]
    wanted = np.asarray(amax, np.float64) / LEVELS
    with np.errstate(over="ignore"):
        rounded = wanted.astype(kind)
    rounded = np.where(rounded.astype(np.float64) < wanted, np.nextafter(rounded, kind(np.inf)), rounded)
    floored = np.maximum(rounded.astype(np.float32), np.float32(SCALE_FLOORS[scales]))
    return np.where(wanted == 0, np.float32(1), floored).astype(np.float32)


def quantize_weight(
    weight: NDArray[Any], *, axis: int, scales: Scales
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight as INT8 with one scale for each place along `axis`.

    Returns:
        The integers, of the weight's shape, and the scales, one-dimensional. Their product is within
        half a scale of the weight.
    """
    others = tuple(place for place in range(weight.ndim) if place != axis)
    amax = np.maximum(weight.max(axis=others), -weight.min(axis=others))
    scale = scales_from_amax(amax, scales=scales)
    spread = scale.reshape([-1 if place == axis else 1 for place in range(weight.ndim)])
    quantized = np.empty(weight.shape, np.int8)
    rows = max(1, _SLICE // max(1, weight[0].size))
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        quantized[part] = np.rint(weight[part] / (spread[part] if axis == 0 else spread))
    return quantized, scale


def insert_qdq(
    model: ModelProto,
    plan: Sequence[LayerPlan],
    *,
    ranges: Mapping[str, float],
    scales: Scales,
    means: Mapping[str, Sequence[float]] | None = None,
) -> ModelProto:
    """A new FP32 graph in which the plan's INT8 layers read through Q/DQ.

    A tensor has one QuantizeLinear and one DequantizeLinear, shared by all who read it quantized; the
    others keep the original. Quantized weights are not kept in FP32 unless another node reads them.

    Args:
        model: FP32 graph; it is not changed.
        plan: of `plan_layers`, for this graph.
        ranges: activation -> largest absolute value to represent, for each of `tensors_to_calibrate`.
        scales: type the scales will be written in. They are written as FP32 here, with values that this
            type holds; `cnnx.graph.passes.fp16.type_fp16` gives them their type.
        means: activation -> mean of each channel. Where that of a layer's input is known, its bias takes up
            what rounding the weights adds to its output on average.

    Raises:
        GraphError: the graph is quantized already, or a range is missing, not positive or too large.
    """
    refuse_quantized(model)
    uses = quantized_uses(model, plan)
    if not uses:
        return _copy(model)
    writer = _Writer(model, scales, means or {})
    int8 = {layer.node for layer in plan if layer.precision == "int8"}
    for value in edit.data_inputs(model.graph):
        writer.quantize_activation(value.name, uses, ranges)
    for node in model.graph.node:
        writer.add_node(node, quantized=node.name in int8, uses=uses)
        for tensor in node.output:
            writer.quantize_activation(tensor, uses, ranges)
    return writer.finish()


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def refuse_quantized(model: ModelProto) -> None:
    """Refuse to quantize what is quantized already.

    Raises:
        GraphError: it is.
    """
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
            raise GraphError(
                f"the graph is quantized already: it has a {node.op_type}",
                where=edit.label(node),
                mend="start from the FP32 model",
            )


class _Writer:
    """Builds the quantized graph node by node; what has been quantized once is used again."""

    def __init__(self, model: ModelProto, scales: Scales, means: Mapping[str, Sequence[float]]) -> None:
        self._source = model
        self._scales = scales
        self._means = means
        self._constants = edit.initializers(model.graph)
        self._names = edit.Names(model.graph)
        self._result = edit.shell(model)
        self._added: dict[str, TensorProto] = {}
        self._dequantized: dict[str, str] = {}
        self._quantized: dict[str, tuple[str, str]] = {}

    def quantize_activation(
        self, tensor: str, uses: Mapping[str, tuple[str, ...]], ranges: Mapping[str, float]
    ) -> None:
        """Append the Q/DQ pair of an activation, if anybody reads it quantized."""
        if tensor not in uses:
            return
        scale = self._constant(f"{tensor}.scale", self._activation_scale(tensor, ranges))
        zero = self._shared("cnnx.zero_point", np.zeros((), np.int8))
        integers = self._append("QuantizeLinear", [tensor, scale, zero], f"{tensor}.quantized")
        self._dequantized[tensor] = self._append(
            "DequantizeLinear", [integers, scale, zero], f"{tensor}.dequantized"
        )

    def add_node(self, node: NodeProto, *, quantized: bool, uses: Mapping[str, tuple[str, ...]]) -> None:
        """Append a node of the source, reading what the plan wants quantized through Q/DQ."""
        wired = NodeProto()
        wired.CopyFrom(node)
        if quantized:
            wired.input[1] = self._quantize_weight(node)
            self._correct_bias(node, wired)
        for place, tensor in enumerate(node.input):
            if node.name in uses.get(tensor, ()):
                wired.input[place] = self._dequantized[tensor]
        self._result.graph.node.append(wired)

    def finish(self) -> ModelProto:
        """The result, with those of the source's constants that it still reads."""
        graph = self._result.graph
        read = {name for node in graph.node for name in node.input}
        read.update(value.name for value in graph.output)
        graph.initializer.extend(t for t in self._source.graph.initializer if t.name in read)
        graph.initializer.extend(self._added.values())
        for place in reversed(range(len(graph.input))):  # weights that were listed as inputs too
            if graph.input[place].name in self._constants and graph.input[place].name not in read:
                del graph.input[place]
        return self._result

    def _activation_scale(self, tensor: str, ranges: Mapping[str, float]) -> NDArray[np.float32]:
        amax = ranges.get(tensor, 0.0)
        scale = scales_from_amax(np.array(amax), scales=self._scales)
        if not (math.isfinite(amax) and amax > 0 and np.isfinite(scale)):
            raise GraphError(
                f"an activation needs a positive range that {self._scales} can scale, this one has "
                f"{ranges.get(tensor)}",
                where=tensor,
                mend="calibrate again, or leave the layers that read it in FP16 (precision.overrides)",
            )
        return scale

    def _quantize_weight(self, node: NodeProto) -> str:
        """Name of a node's weight after its DequantizeLinear, which is appended on first use."""
        axis = edit.weight_axis(node, self._constants)
        if axis is None:
            raise GraphError(f"{node.op_type} has no constant weight to quantize", where=edit.label(node))
        name = node.input[1]
        key = f"{name}.dequantized" if axis == 0 else f"{name}.dequantized.axis{axis}"
        if key not in self._dequantized:
            values, scale = quantize_weight(edit.array(self._constants[name]), axis=axis, scales=self._scales)
            if not np.isfinite(scale).all():
                raise GraphError(f"a weight is too large for a scale in {self._scales}", where=name)
            zeros = self._shared(f"cnnx.zero_points.{len(scale)}", np.zeros(len(scale), np.int8))
            inputs = [self._constant(f"{name}.int8", values), self._constant(f"{name}.scale", scale), zeros]
            self._dequantized[key] = self._append("DequantizeLinear", inputs, key, axis=axis)
            self._quantized[self._dequantized[key]] = (inputs[0], inputs[1])
        return self._dequantized[key]

    def _correct_bias(self, node: NodeProto, wired: NodeProto) -> None:
        """Add to a layer's bias what its quantized weights lack on average."""
        mean = self._means.get(node.input[0])
        bias = node.input[2] if len(node.input) > 2 else ""
        if mean is None or (bias and bias not in self._constants):
            return
        integers, scale = (self._added[name] for name in self._quantized[wired.input[1]])
        shift = mean_output_error(
            node,
            edit.array(self._constants[node.input[1]]),
            quantized=edit.array(integers),
            scale=edit.array(scale),
            mean=np.asarray(mean, np.float32),
        )
        if shift is None:
            return
        values = edit.array(self._constants[bias]) + shift if bias else shift
        if self._scales == "fp16" and np.abs(values).max(initial=0) > _FP16_MAX:
            return
        del wired.input[2:]
        wired.input.append(self._constant(f"{bias or node.name}.corrected", values.astype(np.float32)))

    def _append(self, op: str, inputs: Sequence[str], stem: str, *, axis: int | None = None) -> str:
        output = self._names.fresh(stem)
        node = helper.make_node(op, inputs, [output], name=output)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._result.graph.node.append(node)
        return output

    def _constant(self, stem: str, values: NDArray[Any]) -> str:
        name = self._names.fresh(stem)
        self._added[name] = edit.tensor_from_array(name, values)
        return name

    def _shared(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._added:
            self._added[name] = edit.tensor_from_array(name, values)
        return name
