"""Inserts QuantizeLinear and DequantizeLinear (Q/DQ) where TensorRT expects them.

Quantization is symmetric: q = round(x / scale) with zero point 0, and a range maps to -127..127. Activations
outside their range are clipped to 127 or, as QuantizeLinear defines, to -128.

Activations have one scale per tensor, weights one per output channel. Biases stay float, as TensorRT refuses
INT32 biases. Weights are stored as INT8 and only dequantized, which makes the file smaller.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.passes.correction import mean_output_error
from cnnx.graph.passes.rounding import round_for_smooth_images
from cnnx.graph.policy.context import SCALE_FLOORS
from cnnx.graph.policy.placement import LayerPlan, quantized_uses
from cnnx.options import Scales

LEVELS = 127  # -128 is left unused, so that the range is symmetric

_TYPES: dict[str, type[np.floating[Any]]] = {"fp16": np.float16, "fp32": np.float32}

_FP16_MAX = float(np.finfo(np.float16).max)
# By how much a kept scale may be rounded up without new integers: all FP16 numbers above 2**-15 are nearer.
_ROUNDED = np.float32(1 + 2**-9)
# Weight elements quantized at a time, to limit the size of temporary copies.
_SLICE = 1 << 22


def scales_from_amax(amax: NDArray[Any], *, scales: Scales) -> NDArray[np.float32]:
    """Scales for ranges: amax / 127, rounded up to the type they will be stored in.

    Rounding up ensures that the range itself does not saturate. Rounding before anything is quantized ensures
    that storing the scale does not change it. A range of 0 (a dead channel) gets the scale 1, as any positive
    scale reproduces zeros and TensorRT refuses a scale of 0.

    Args:
        amax: largest absolute values, any shape, at least 0.
        scales: type the scales will be stored in.

    Returns:
        float32 values of the same shape, each representable in that type; infinity if too large for it.
    """
    kind = _TYPES[scales]
    wanted = np.asarray(amax, np.float64) / LEVELS
    with np.errstate(over="ignore"):
        rounded = wanted.astype(kind)
    rounded = np.where(rounded.astype(np.float64) < wanted, np.nextafter(rounded, kind(np.inf)), rounded)
    floored = np.maximum(rounded.astype(np.float32), np.float32(SCALE_FLOORS[scales]))
    return np.where(wanted == 0, np.float32(1), floored).astype(np.float32)


def quantize_weight(
    weight: NDArray[Any], *, axis: int, scales: Scales, steps: Sequence[float] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a weight to INT8 with one scale per index of `axis`.

    Args:
        weight: the weight, in which no value is infinite or NaN.
        axis: axis of the output channels.
        scales: type the scales will be stored in.
        steps: largest |w| of each index in steps, to keep a file's scales and integers: the scale is rounded
            to its type after the division. More than 127 clips. None: 127.

    Returns:
        The integers in the shape of the weight, and the 1-D scales. Their product is within half a scale of
        the weight, unless `steps` clips.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    amax = np.maximum(weight.max(axis=others), -weight.min(axis=others))
    scale, divisor = _scales_of_weight(amax, scales=scales, steps=steps)
    spread = divisor.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
    quantized = np.empty(weight.shape, np.int8)
    rows = max(1, _SLICE // max(1, weight[0].size))
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        rounded = np.rint(weight[part] / (spread[part] if axis == 0 else spread))
        quantized[part] = np.clip(rounded, -LEVELS - 1, LEVELS)
    return quantized, scale


def _scales_of_weight(
    amax: NDArray[Any], *, scales: Scales, steps: Sequence[float] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scales as stored, and what to divide the weights by."""
    if steps is None:
        scale = scales_from_amax(amax, scales=scales)
        return scale, scale
    wanted = np.asarray(steps, np.float64)
    exact = np.divide(amax, wanted, out=np.zeros_like(wanted), where=wanted > 0).astype(np.float32)
    scale = scales_from_amax(exact.astype(np.float64) * LEVELS, scales=scales)
    # A scale far below the smallest FP16 number becomes much larger, so that its integers must be smaller.
    return scale, np.where(scale <= exact * _ROUNDED, exact, scale)


def insert_qdq(
    model: ModelProto,
    plan: Sequence[LayerPlan],
    *,
    ranges: Mapping[str, float],
    scales: Scales,
    means: Mapping[str, Sequence[float]] | None = None,
    steps: Mapping[str, Sequence[float]] | None = None,
    smooth: Collection[str] = (),
) -> ModelProto:
    """A new FP32 graph in which the INT8 layers of the plan read their inputs through Q/DQ.

    A tensor has one QuantizeLinear and one DequantizeLinear, shared by all quantized readers; other readers
    use the original. Quantized weights are kept in FP32 only if another node reads them.

    Args:
        model: FP32 graph; it is not changed.
        plan: result of `plan_layers` for this graph.
        ranges: activation -> largest absolute value to represent, for each of `tensors_to_calibrate`.
        scales: final type of the scales. Here they are stored as FP32 with values that fit this type;
            `cnnx.graph.passes.fp16.type_fp16` converts them.
        means: activation -> mean of each channel. If the mean of a layer's input is known, its bias
            compensates the mean error from rounding its weights.
        steps: layer -> largest |w| of each output channel in steps of its scale, to keep a file's scales
            (`cnnx.graph.scales`); other layers have 127.
        smooth: convolutions whose weights are rounded for smooth images (`cnnx.graph.passes.rounding`).

    Raises:
        GraphError: the graph is already quantized, or a range is missing, not positive or too large.
    """
    _refuse_quantized(model)
    uses = quantized_uses(model, plan)
    if not uses:
        return _copy(model)
    writer = _Writer(model, scales, means or {}, steps or {}, smooth)
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


def _refuse_quantized(model: ModelProto) -> None:
    """Refuse a graph that is already quantized.

    Raises:
        GraphError: the graph has a quantization operator.
    """
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
            raise GraphError(
                f"the graph is quantized already: it has a {node.op_type}",
                where=f"node {edit.label(node)}",
                hint="export it to an ONNX file, and give that: the scales of a file are kept",
            )


class _Writer:
    """Builds the quantized graph node by node; quantized tensors are reused."""

    def __init__(
        self,
        model: ModelProto,
        scales: Scales,
        means: Mapping[str, Sequence[float]],
        steps: Mapping[str, Sequence[float]],
        smooth: Collection[str],
    ) -> None:
        self._source = model
        self._smooth = smooth
        self._scales = scales
        self._means = means
        self._steps = steps
        self._constants = edit.initializers(model.graph)
        self._names = edit.Names(model.graph)
        self._result = edit.shell(model)
        self._added: dict[str, TensorProto] = {}
        self._dequantized: dict[str, str] = {}
        self._quantized: dict[str, tuple[str, str]] = {}

    def quantize_activation(
        self, tensor: str, uses: Mapping[str, tuple[str, ...]], ranges: Mapping[str, float]
    ) -> None:
        """Append the Q/DQ pair of an activation if a node reads it quantized."""
        if tensor not in uses:
            return
        scale = self._constant(f"{tensor}.scale", self._activation_scale(tensor, ranges))
        zero = self._shared("cnnx.zero_point", np.zeros((), np.int8))
        integers = self._append("QuantizeLinear", [tensor, scale, zero], f"{tensor}.quantized")
        self._dequantized[tensor] = self._append(
            "DequantizeLinear", [integers, scale, zero], f"{tensor}.dequantized"
        )

    def add_node(self, node: NodeProto, *, quantized: bool, uses: Mapping[str, tuple[str, ...]]) -> None:
        """Append a node of the source graph; its quantized inputs come from Q/DQ."""
        wired = NodeProto()
        wired.CopyFrom(node)
        if quantized:
            wired.input[1] = self._quantize_weight(node)
            self._correct_bias(node, wired)
        for index, tensor in enumerate(node.input):
            if node.name in uses.get(tensor, ()):
                wired.input[index] = self._dequantized[tensor]
        self._result.graph.node.append(wired)

    def finish(self) -> ModelProto:
        """The result, with the constants of the source graph that it still reads."""
        graph = self._result.graph
        read = {name for node in graph.node for name in node.input}
        read.update(value.name for value in graph.output)
        graph.initializer.extend(t for t in self._source.graph.initializer if t.name in read)
        graph.initializer.extend(self._added.values())
        for index in reversed(range(len(graph.input))):  # weights that were listed as inputs too
            if graph.input[index].name in self._constants and graph.input[index].name not in read:
                del graph.input[index]
        return self._result

    def _activation_scale(self, tensor: str, ranges: Mapping[str, float]) -> NDArray[np.float32]:
        amax = ranges.get(tensor, 0.0)
        scale = scales_from_amax(np.array(amax), scales=self._scales)
        if not (math.isfinite(amax) and amax > 0 and np.isfinite(scale)):
            raise GraphError(
                f"the range of the activation is {ranges.get(tensor)}, but must be positive and have a scale "
                f"in {self._scales}",
                where=f"tensor {tensor}",
                hint="calibrate again, or keep the layers that read it in FP16 (precision.overrides)",
            )
        return scale

    def _quantize_weight(self, node: NodeProto) -> str:
        """Name of the dequantized weight of a node; its DequantizeLinear is appended on first use."""
        axis = edit.weight_axis(node, self._constants)
        if axis is None:
            where, hint = f"node {edit.label(node)}", "keep this layer in FP16 (precision.overrides)"
            raise GraphError(f"{node.op_type} has no constant weight to quantize", where=where, hint=hint)
        name = node.input[1]
        key = f"{name}.dequantized" if axis == 0 else f"{name}.dequantized.axis{axis}"
        if key not in self._dequantized:
            values, scale = quantize_weight(
                edit.array(self._constants[name]),
                axis=axis,
                scales=self._scales,
                steps=self._steps.get(node.name),
            )
            if not np.isfinite(scale).all():
                hint = "keep this layer in FP16 or FP32 (precision.overrides), or use --scales fp32"
                what = f"the weight is too large for a scale in {self._scales}"
                raise GraphError(what, where=f"weight {name}", hint=hint)
            if node.name in self._smooth:
                values = round_for_smooth_images(edit.array(self._constants[name]), values, scale)
            zeros = self._shared(f"cnnx.zero_points.{len(scale)}", np.zeros(len(scale), np.int8))
            inputs = [self._constant(f"{name}.int8", values), self._constant(f"{name}.scale", scale), zeros]
            self._dequantized[key] = self._append("DequantizeLinear", inputs, key, axis=axis)
            self._quantized[self._dequantized[key]] = (inputs[0], inputs[1])
        return self._dequantized[key]

    def _correct_bias(self, node: NodeProto, wired: NodeProto) -> None:
        """Add the mean output error of the quantized weights to the bias of a layer."""
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
