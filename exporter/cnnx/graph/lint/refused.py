"""Lint rules for graphs that TensorRT refuses or misreads.

Sources: onnx-tensorrt's operators.md and the assertions of its importers; TensorRT's guide on explicit
quantization. The tests compare these rules with TensorRT for RTX 1.7 if its parser also refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from cnnx.graph.edit import attribute, data_inputs, label, opset, type_name
from cnnx.graph.inspect import WEIGHTED
from cnnx.graph.lint.view import DEQUANTIZE, QUANTIZE, Fault, View

OLDEST_OPSET, NEWEST_OPSET, NEWEST_IR = 13, 20, 10
_LARGEST_LRN = 15

# Standard operators that onnx-tensorrt does not support (operators.md, checked with RTX 1.7).
_UNSUPPORTED = """
    Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress
    ConcatFromSequence ConvInteger DFT DeformConv Det DynamicQuantizeLinear MatMulInteger MaxRoiPool
    MaxUnpool Multinomial NegativeLogLikelihoodLoss QLinearConv QLinearMatMul SequenceAt
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SoftmaxCrossEntropyLoss
    SplitToSequence StringNormalizer TfIdfVectorizer Unique
"""
UNSUPPORTED = frozenset(_UNSUPPORTED.split())


def versions(view: View) -> Iterator[Fault]:
    """TensorRT 10.3, the oldest supported, reads opset 20; ONNX Runtime for Python 3.10 reads IR 10."""
    version = opset(view.model)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        yield (
            view.model.graph.name,
            f"the opset is {version}; {OLDEST_OPSET}..{NEWEST_OPSET} are supported",
            "export the model again with opset 19",
        )
    if view.model.ir_version > NEWEST_IR:
        yield (
            view.model.graph.name,
            f"the IR version is {view.model.ir_version}; at most {NEWEST_IR} is supported",
            f"set ir_version to {NEWEST_IR} and save the model again",
        )


def unknown_operators(view: View) -> Iterator[Fault]:
    """Only a plugin could run these."""
    for node in view.model.graph.node:
        if view.is_standard(node):
            continue
        source = f"domain {node.domain!r}" if node.domain else f"opset {opset(view.model)}"
        hint = "export the model without custom operators" if node.domain else "correct the name or the opset"
        yield label(node), f"TensorRT does not know the operator {node.op_type} of {source}", hint


def unsupported_operators(view: View) -> Iterator[Fault]:
    """Standard operators that TensorRT's parser does not import."""
    for node in view.nodes(*UNSUPPORTED):
        yield (
            label(node),
            f"TensorRT does not support {node.op_type}",
            "replace it with Conv, MatMul, Q/DQ and elementwise operators",
        )


def external_data(view: View) -> Iterator[Fault]:
    """The data file of a graph is easily lost, so weights must be in the graph."""
    for tensor in view.model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor.name, "its values are in another file", "save the model as one file"


def float64(view: View) -> Iterator[Fault]:
    """TensorRT casts float64 down or refuses it, depending on the operator."""
    for name, found in view.types.items():
        if found.elem_type == TensorProto.DOUBLE:
            yield name, "the tensor is float64", "convert the model to float32 before export: model.float()"


def dynamic_shapes(view: View) -> Iterator[Fault]:
    """Only the batch may be dynamic: ranges, kernels and the profile hold for one image size."""
    for value in data_inputs(view.model.graph):
        kind = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim]
        if not shape or not all(isinstance(length, int) for length in shape[1:]):
            yield (
                value.name,
                f"the input shape is {shape or 'not given'}",
                "export the model with a fixed image size; only the batch may be dynamic",
            )


def lrn_windows(view: View) -> Iterator[Fault]:
    """TensorRT's LRN layer takes odd windows from 1 to 15."""
    for node in view.nodes("LRN"):
        size = attribute(node, "size")
        if size % 2 == 0 or size > _LARGEST_LRN:
            yield label(node), f"the LRN window is {size}", f"use an odd window of at most {_LARGEST_LRN}"


def pools_past_the_end(view: View) -> Iterator[Fault]:
    """PyTorch drops a last window that starts in the padding; ONNX's ceil_mode may include it."""
    for node in view.nodes("MaxPool", "AveragePool"):
        kernel = attribute(node, "kernel_shape")
        lengths = [length for length in view.shape(node.input[0])[2:] if isinstance(length, int)]
        if not attribute(node, "ceil_mode", 0) or len(lengths) < len(kernel):
            continue
        ones = [1] * len(kernel)
        strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
        pads = attribute(node, "pads", [0, 0] * len(kernel))
        for axis, length in enumerate(lengths):
            before, after = pads[axis], pads[axis + len(kernel)]
            span = dilations[axis] * (kernel[axis] - 1) + 1
            start = -((span - length - before - after) // strides[axis]) * strides[axis]
            if start >= length + before:
                yield (
                    label(node),
                    f"with ceil_mode, the last window on axis {axis + 2} starts at {start - before}, beyond "
                    f"the {length} input values",
                    "set ceil_mode=False and add the padding that gives the same output size",
                )


def quantized_types(view: View) -> Iterator[Fault]:
    """TensorRT silently reads UINT8 with zero point 0 as INT8, so values above 127 become negative."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        stored = node.output[0] if node.op_type == QUANTIZE else node.input[0]
        kind = view.elem_type(stored)
        if kind in (TensorProto.INT8, TensorProto.INT32, TensorProto.UNDEFINED):
            continue
        if node.op_type == QUANTIZE or stored not in view.wires.producers:
            name = type_name(kind)
            yield label(node), f"the quantized type is {name}, not INT8", "use an INT8 zero point of 0"


def int32_biases(view: View) -> Iterator[Fault]:
    """TensorRT does not support INT32 biases."""
    for node in view.nodes(DEQUANTIZE):
        if view.elem_type(node.input[0]) == TensorProto.INT32:
            yield label(node), f"it dequantizes the INT32 tensor {node.input[0]!r}", "keep the bias in float"


def zero_points(view: View) -> Iterator[Fault]:
    """TensorRT supports only symmetric quantization."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        if len(node.input) < 3 or not node.input[2]:
            continue
        zero = view.values(node.input[2])
        if zero is None:
            yield label(node), "the zero point is not constant", "use a constant zero point of 0"
        elif np.any(zero.astype(np.int64)):
            worst = zero.reshape(-1)[np.argmax(np.abs(zero.astype(np.int64)))]
            yield label(node), f"the zero point is {worst}", "quantize symmetrically, with zero point 0"


def scales_not_constant(view: View) -> Iterator[Fault]:
    """TensorRT needs scales at build time."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        if view.scale(node) is None:
            yield (
                label(node),
                f"the scale {node.input[1]!r} is not constant",
                "use an initializer",
            )


def scale_values(view: View) -> Iterator[Fault]:
    """A weight scale of 0 comes from a channel of all-zero weights, or from FP16 underflow."""
    for node, scale in _scales(view):
        flat = scale.astype(np.float64).reshape(-1)
        bad = np.flatnonzero(~(np.isfinite(flat) & (flat > 0)))
        if bad.size:
            part = f"channel {bad[0]} of {flat.size}" if flat.size > 1 else "the tensor"
            yield (
                label(node),
                f"the scale of {part} is {flat[bad[0]]:g} ({bad.size} invalid)",
                "make every scale positive and finite in the type it is stored in",
            )


def scale_mismatches(view: View) -> Iterator[Fault]:
    """A Q/DQ pair with two scales multiplies its tensor by their quotient."""
    for node, scale in _scales(view, DEQUANTIZE):
        quantize = view.wires.producers.get(node.input[0])
        other = view.scale(quantize) if quantize is not None and quantize.op_type == QUANTIZE else None
        if other is not None and not np.allclose(
            scale.astype(np.float64), other.astype(np.float64), rtol=2**-10, atol=2**-25
        ):
            yield (
                label(node),
                f"the scale is {_first(scale):g}, but {_first(other):g} in its QuantizeLinear",
                "use the same scale for both",
            )


def block_quantization(view: View) -> Iterator[Fault]:
    """TensorRT supports block quantization only for INT4 and FP4 weights."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        size, scale = attribute(node, "block_size", 0), view.scale(node)
        if size or (scale is not None and scale.ndim > 1):
            found = (
                f"blocks of {size}" if size else f"a scale of {scale.ndim if scale is not None else 0} axes"
            )
            yield (
                label(node),
                f"it has {found}",
                "use one scale per weight channel or activation",
            )


def activations_per_channel(view: View) -> Iterator[Fault]:
    """Only weights may have per-channel scales."""
    for node, scale in _scales(view):
        if scale.size > 1 and scale.ndim == 1 and not view.is_constant(node.input[0]):
            yield label(node), f"the activation has {scale.size} scales", "use one scale for the whole tensor"


def weight_axes(view: View) -> Iterator[Fault]:
    """Scales must run along output channels; ONNX's default axis 1 fits only a Gemm without transB."""
    for node, scale in _scales(view, DEQUANTIZE):
        if scale.ndim != 1 or scale.size < 2 or not view.is_constant(node.input[0]):
            continue
        rank = len(view.shape(node.output[0]))
        axis = attribute(node, "axis", 1) % max(rank, 1)
        for reader in view.readers(node, *WEIGHTED):
            wanted = _output_axis(reader, rank)
            if rank and reader.input[1] == node.output[0] and axis != wanted:
                yield (
                    label(node),
                    f"the {scale.size} scales run along axis {axis} of the weight of {label(reader)}",
                    f"quantize along the output channels, axis {wanted}",
                )


def _output_axis(node: NodeProto, rank: int) -> int:
    """Output-channel axis of a weight."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else rank - 1


def unpaired(view: View) -> Iterator[Fault]:
    """TensorRT expects Q/DQ pairs; a single Q or DQ makes it compute on real INT8 tensors."""
    for node in view.nodes(QUANTIZE):
        readers = view.wires.consumers.get(node.output[0], [])
        others = [r.op_type for r in readers if r.op_type != DEQUANTIZE]
        if others or not readers or node.output[0] in view.wires.outputs:
            found = f"{others[0]} reads its INT8 output" if others else "no node dequantizes its output"
            yield label(node), found, "add a DequantizeLinear after every QuantizeLinear"
    for node in view.nodes(DEQUANTIZE):
        producer = view.wires.producers.get(node.input[0])
        made = producer is not None and producer.op_type in (QUANTIZE, "Constant")
        if not made and node.input[0] not in view.wires.initializers:
            source = producer.op_type if producer is not None else "the graph's input"
            yield label(node), f"its input comes from {source}", "add a QuantizeLinear before it"


def _scales(view: View, *ops: str) -> Iterator[tuple[NodeProto, NDArray[Any]]]:
    """Q and DQ nodes, or those of the given operators, with their constant scales."""
    for node in view.nodes(*(ops or (QUANTIZE, DEQUANTIZE))):
        scale = view.scale(node)
        if scale is not None:
            yield node, scale


def _first(scale: NDArray[Any]) -> float:
    return float(scale.flat[0])
