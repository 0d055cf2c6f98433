"""Rules whose breach TensorRT refuses or misreads.

Sources: onnx-tensorrt's operators.md and the assertions of its importers; TensorRT's guide on explicit
quantization. Each that the parser of TensorRT for RTX 1.7 refuses too is compared with it in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from cnnx.graph.edit import attribute, data_inputs, label, opset
from cnnx.graph.inspect import WEIGHTED
from cnnx.graph.lint.view import DEQUANTIZE, QUANTIZE, Fault, View

OLDEST_OPSET, NEWEST_OPSET, NEWEST_IR = 13, 20, 10
_LARGEST_LRN = 15

# Standard operators that onnx-tensorrt's parser does not have (operators.md, checked on RTX 1.7).
_UNSUPPORTED = """
    Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress
    ConcatFromSequence ConvInteger DFT DeformConv Det DynamicQuantizeLinear MatMulInteger MaxRoiPool
    MaxUnpool Multinomial NegativeLogLikelihoodLoss QLinearConv QLinearMatMul SequenceAt
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SoftmaxCrossEntropyLoss
    SplitToSequence StringNormalizer TfIdfVectorizer Unique
"""
UNSUPPORTED = frozenset(_UNSUPPORTED.split())


def versions(view: View) -> Iterator[Fault]:
    """TensorRT 10.3, the oldest that is promised, reads opset 20; ONNX Runtime for Python 3.10 IR 10."""
    version = opset(view.model)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        yield (
            view.model.graph.name,
            f"it is of opset {version}, not {OLDEST_OPSET}..{NEWEST_OPSET}",
            "export it again with opset 19",
        )
    if view.model.ir_version > NEWEST_IR:
        yield (
            view.model.graph.name,
            f"its IR version is {view.model.ir_version}, above {NEWEST_IR}",
            f"set ir_version to {NEWEST_IR} and save it again",
        )


def unknown_operators(view: View) -> Iterator[Fault]:
    """Only plugins could run these."""
    for node in view.model.graph.node:
        if view.is_standard(node):
            continue
        home = f"the domain {node.domain!r}" if node.domain else f"opset {opset(view.model)}"
        mend = "export without custom operators" if node.domain else "correct the name or the opset"
        yield label(node), f"{node.op_type} of {home} is no operator that TensorRT can know", mend


def unsupported_operators(view: View) -> Iterator[Fault]:
    """Standard operators without an importer."""
    for node in view.nodes(*UNSUPPORTED):
        yield (
            label(node),
            f"TensorRT's parser has no {node.op_type}",
            "express it with Conv, MatMul, Q/DQ and elementwise operators",
        )


def external_data(view: View) -> Iterator[Fault]:
    """A graph in two files loses one of them."""
    for tensor in view.model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor.name, "its values lie in another file", "save the graph in one file"


def float64(view: View) -> Iterator[Fault]:
    """TensorRT casts it down or refuses it, depending on where it stands."""
    for name, found in view.types.items():
        if found.elem_type == TensorProto.DOUBLE:
            yield name, "it is float64", "cast the model to float32 before exporting"


def dynamic_shapes(view: View) -> Iterator[Fault]:
    """Only the batch may vary: ranges, kernels and the profile are all for one picture size."""
    for value in data_inputs(view.model.graph):
        kind = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim]
        if not shape or not all(isinstance(length, int) for length in shape[1:]):
            yield (
                value.name,
                f"its shape is {shape or 'not given'}",
                "export with a fixed picture size; only the first dimension may vary",
            )


def lrn_windows(view: View) -> Iterator[Fault]:
    """TensorRT's LRN layer takes odd windows from 1 to 15."""
    for node in view.nodes("LRN"):
        size = attribute(node, "size")
        if size % 2 == 0 or size > _LARGEST_LRN:
            yield label(node), f"its window is {size}", f"use an odd window of at most {_LARGEST_LRN}"


def pools_past_the_end(view: View) -> Iterator[Fault]:
    """PyTorch drops a last window that starts in the padding; ONNX's ceil_mode may count it."""
    for node in view.nodes("MaxPool", "AveragePool"):
        lengths = view.shape(node.input[0])[2:]
        if not attribute(node, "ceil_mode", 0) or not all(isinstance(n, int) for n in lengths):
            continue
        kernel = attribute(node, "kernel_shape")
        ones = [1] * len(kernel)
        strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
        pads = attribute(node, "pads", [0, 0] * len(kernel))
        for axis, length in enumerate(lengths):
            before, after = pads[axis], pads[axis + len(kernel)]
            span = dilations[axis] * (kernel[axis] - 1) + 1
            start = -((span - int(length or 0) - before - after) // strides[axis]) * strides[axis]
            if start >= int(length or 0) + before:
                yield (
                    label(node),
                    f"with ceil_mode its last window of axis {axis + 2} starts at {start - before}, past the "
                    f"input's {length} values",
                    "export with ceil_mode off and the padding that gives the wanted size",
                )


def quantized_types(view: View) -> Iterator[Fault]:
    """TensorRT reads UINT8 with zero point 0 as INT8 without a word: everything above 127 turns negative."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        stored = node.output[0] if node.op_type == QUANTIZE else node.input[0]
        kind = view.elem_type(stored)
        if kind in (TensorProto.INT8, TensorProto.INT32, TensorProto.UNDEFINED):
            continue
        if node.op_type == QUANTIZE or stored not in view.wires.producers:
            name = TensorProto.DataType.Name(kind)
            yield label(node), f"it quantizes to {name}, not INT8", "give it an INT8 zero point of 0"


def int32_biases(view: View) -> Iterator[Fault]:
    """Biases stay float."""
    for node in view.nodes(DEQUANTIZE):
        if view.elem_type(node.input[0]) == TensorProto.INT32:
            yield label(node), f"it dequantizes {node.input[0]!r} from INT32", "keep the bias as float"


def zero_points(view: View) -> Iterator[Fault]:
    """TensorRT quantizes symmetrically."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        if len(node.input) < 3 or not node.input[2]:
            continue
        zero = view.values(node.input[2])
        if zero is None:
            yield label(node), "its zero point is not a constant", "use a constant zero point of 0"
        elif np.any(zero.astype(np.int64)):
            worst = zero.reshape(-1)[np.argmax(np.abs(zero.astype(np.int64)))]
            yield label(node), f"its zero point is {worst}", "quantize symmetrically: zero point 0"


def scales_not_constant(view: View) -> Iterator[Fault]:
    """Scales are build-time constants."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        if view.scale(node) is None:
            yield label(node), f"its scale {node.input[1]!r} is not a constant", "use an initializer"


def scale_values(view: View) -> Iterator[Fault]:
    """A weight scale of 0 comes from a channel whose weights are all 0, or from FP16 underflow."""
    for node, scale in _scales(view):
        flat = scale.astype(np.float64).reshape(-1)
        bad = np.flatnonzero(~(np.isfinite(flat) & (flat > 0)))
        if bad.size:
            place = f"channel {bad[0]} of {flat.size}" if flat.size > 1 else "the tensor"
            yield (
                label(node),
                f"the scale of {place} is {flat[bad[0]]:g} ({bad.size} such)",
                "make every scale positive and finite in the type it is written in",
            )


def scale_mismatches(view: View) -> Iterator[Fault]:
    """A pair with two scales multiplies its tensor by their quotient."""
    for node, scale in _scales(view, DEQUANTIZE):
        quantize = view.wires.producers.get(node.input[0])
        other = view.scale(quantize) if quantize is not None and quantize.op_type == QUANTIZE else None
        if other is not None and not np.allclose(
            scale.astype(np.float64), other.astype(np.float64), rtol=2**-10, atol=2**-25
        ):
            yield (
                label(node),
                f"its scale is {_first(scale):g}, its QuantizeLinear's is {_first(other):g}",
                "give the pair one scale",
            )


def block_quantization(view: View) -> Iterator[Fault]:
    """TensorRT has it for INT4 and FP4 weights only."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        size, scale = attribute(node, "block_size", 0), view.scale(node)
        if size or (scale is not None and scale.ndim > 1):
            found = (
                f"blocks of {size}" if size else f"a scale of {scale.ndim if scale is not None else 0} axes"
            )
            yield label(node), f"it has {found}", "use one scale a channel for weights, one for activations"


def activations_per_channel(view: View) -> Iterator[Fault]:
    """Per-channel scales are for weights."""
    for node, scale in _scales(view):
        if scale.size > 1 and scale.ndim == 1 and not view.is_constant(node.input[0]):
            yield label(node), f"an activation has {scale.size} scales", "use one scale for the tensor"


def weight_axes(view: View) -> Iterator[Fault]:
    """Scales run along output channels; ONNX's default axis, 1, is that of a Gemm's plain weight only."""
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
                    f"its {scale.size} scales run along axis {axis} of the weight of {label(reader)}",
                    f"quantize along the output channels, axis {wanted}",
                )


def _output_axis(node: NodeProto, rank: int) -> int:
    """Axis of the output channels in a weight."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else rank - 1


def unpaired(view: View) -> Iterator[Fault]:
    """TensorRT sees quantization as pairs: a lone half makes its neighbours' INT8 real arithmetic."""
    for node in view.nodes(QUANTIZE):
        readers = view.wires.consumers.get(node.output[0], [])
        others = [r.op_type for r in readers if r.op_type != DEQUANTIZE]
        if others or not readers or node.output[0] in view.wires.outputs:
            found = f"{others[0]} reads its integers" if others else "nothing dequantizes its integers"
            yield label(node), found, "let a DequantizeLinear follow every QuantizeLinear"
    for node in view.nodes(DEQUANTIZE):
        producer = view.wires.producers.get(node.input[0])
        made = producer is not None and producer.op_type in (QUANTIZE, "Constant")
        if not made and node.input[0] not in view.wires.initializers:
            source = producer.op_type if producer is not None else "the graph's input"
            yield label(node), f"its data comes from {source}", "quantize it with a QuantizeLinear"


def _scales(view: View, *ops: str) -> Iterator[tuple[NodeProto, NDArray[Any]]]:
    """Q and DQ nodes, or only some, with their constant scales."""
    for node in view.nodes(*(ops or (QUANTIZE, DEQUANTIZE))):
        scale = view.scale(node)
        if scale is not None:
            yield node, scale


def _first(scale: NDArray[Any]) -> float:
    return float(scale.reshape(-1)[0])
