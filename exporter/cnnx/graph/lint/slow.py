"""Lint rules for graphs that TensorRT reads but does not fuse as intended.

Sources: TensorRT's guide on explicit quantization (where to place Q/DQ, which layers commute with it), and
the size limits below which NVIDIA's ModelOpt does not quantize convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from cnnx.graph.edit import attribute, data_inputs, label, small_conv
from cnnx.graph.inspect import WEIGHTED
from cnnx.graph.lint.refused import UNSUPPORTED
from cnnx.graph.lint.view import DEQUANTIZE, QUANTIZE, Fault, View

# Operators of classifiers that onnx-tensorrt has long supported (operators.md, checked with RTX 1.7).
_FAMILIAR = """
    Abs Add ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp Expand Flatten Floor
    Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish Identity
    InstanceNormalization LRN LayerNormalization LeakyRelu Log LogSoftmax LpPool MatMul Max MaxPool Mean
    Min Mul Neg PRelu Pad Pow QuantizeLinear Range ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum Relu Reshape Resize Round Selu Shape Sigmoid Sign Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Where
"""
FAMILIAR = frozenset(_FAMILIAR.split())

_SMALLEST_NORMAL_FP16 = 2.0**-14
_FUSED_ACTIVATIONS = ("Relu", "Clip")


def unfamiliar_operators(view: View) -> Iterator[Fault]:
    """Operators not known to be supported, or refused, by all supported TensorRT versions."""
    for node in view.model.graph.node:
        if view.is_standard(node) and node.op_type not in FAMILIAR | UNSUPPORTED:
            yield (
                label(node),
                f"{node.op_type} may not be supported by every TensorRT version",
                "try a build on the device, or replace it with simpler operators",
            )


def quantized_before_relu(view: View) -> Iterator[Fault]:
    """Convolution and ReLU are fused only if nothing is between them."""
    for conv in view.nodes("Conv"):
        for quantize in view.readers(conv, QUANTIZE):
            for dequantize in view.readers(quantize, DEQUANTIZE):
                for relu in view.readers(dequantize, *_FUSED_ACTIVATIONS):
                    yield (
                        label(conv),
                        f"{label(quantize)} is between it and {label(relu)}",
                        f"quantize after the {relu.op_type}, at the input of the next layer",
                    )


def shortcuts_not_quantized(view: View) -> Iterator[Fault]:
    """The convolution is fused with the Add and stays INT8 only if the shortcut is also INT8."""
    convs = {conv.output[0]: conv for conv in view.int8_convs()}
    for add in view.nodes("Add"):
        branches = [name for name in add.input if not view.is_constant(name)]
        found = [convs[name] for name in branches if name in convs]
        if len(branches) == 2 and found and not any(view.dequantizer(name) for name in branches):
            shortcut = next((name for name in branches if name != found[0].output[0]), branches[0])
            yield (
                label(add),
                f"it adds {shortcut!r}, which is not quantized, to the INT8 convolution {label(found[0])}",
                "add Q/DQ to the shortcut, and only there",
            )


def fp32_scales(view: View) -> Iterator[Fault]:
    """INT8 layers output the type of their scale; FP32 among FP16 costs bandwidth and conversions."""
    pairs = [node for node in view.nodes(DEQUANTIZE) if view.readers(node, *WEIGHTED)]
    wide = [node for node in pairs if view.elem_type(node.input[1]) == TensorProto.FLOAT]
    halves = [name for name, found in view.types.items() if found.elem_type == TensorProto.FLOAT16]
    if wide and halves:
        yield (
            label(wide[0]),
            f"{len(wide)} of {len(pairs)} scales are FP32 in a graph with {len(halves)} FP16 tensors",
            "store the scales of DequantizeLinear in FP16",
        )


def subnormal_scales(view: View) -> Iterator[Fault]:
    """Below 2^-14, an FP16 scale loses one bit of precision per halving."""
    for node in view.nodes(QUANTIZE, DEQUANTIZE):
        scale = view.scale(node)
        if scale is None or scale.dtype != np.float16:
            continue
        small = scale[(scale > 0) & (scale < _SMALLEST_NORMAL_FP16)]
        if small.size:
            yield (
                label(node),
                f"{small.size} of {scale.size} scales are subnormal in FP16, down to {small.min():.3g}",
                "use FP32 scales, or keep the layer in FP16",
            )


def group_channels(view: View) -> Iterator[Fault]:
    """INT8 kernels of grouped convolutions process four channels at a time."""
    for conv, groups, (outputs, inputs, *_) in _int8_convs(view):
        if groups > 1 and inputs > 1 and (inputs % 4 or outputs // groups % 4):
            yield (
                label(conv),
                f"each of its {groups} groups has {inputs} input and {outputs // groups} output channels",
                "keep it in FP16, or use a multiple of 4 channels per group",
            )


def depthwise(view: View) -> Iterator[Fault]:
    """Depthwise convolutions are memory-bound, and FP16 is usually as fast."""
    for conv, groups, (_, inputs, *_kernel) in _int8_convs(view):
        if groups > 1 and inputs == 1:
            yield (
                label(conv),
                f"it is a depthwise convolution ({groups} groups) in INT8",
                "keep it in FP16, or measure both",
            )


def small_layers(view: View) -> Iterator[Fault]:
    """Below ModelOpt's thresholds, requantization costs more than INT8 saves."""
    first = {value.name for value in data_inputs(view.model.graph)}
    for conv, _, shape in _int8_convs(view):
        size = small_conv(conv, shape, first=_source(view, conv.input[0]) in first)
        if size is not None:
            yield label(conv), f"it is small for INT8: {size}", "keep it in FP16, or measure both"


def _source(view: View, tensor: str) -> str:
    """The source of a tensor before Q, DQ and Cast."""
    while (node := view.wires.producers.get(tensor)) and node.op_type in (QUANTIZE, DEQUANTIZE, "Cast"):
        tensor = node.input[0]
    return tensor


def average_pools(view: View) -> Iterator[Fault]:
    """Averages do not commute with rounding: without INT8 output, an INT8 input is dequantized first."""
    for pool in view.nodes("AveragePool", "GlobalAveragePool"):
        if view.reads_int8(pool) and not view.readers(pool, QUANTIZE):
            yield (
                label(pool),
                "it reads INT8, but its output is not quantized",
                "remove the Q/DQ before it, or also quantize its output",
            )


def concat_scales(view: View) -> Iterator[Fault]:
    """Branches with the same scale are concatenated in memory; others must be rescaled first."""
    for concat in view.nodes("Concat"):
        pairs = [node for name in concat.input if (node := view.dequantizer(name)) is not None]
        scales = {float(s.flat[0]) for node in pairs if (s := view.scale(node)) is not None}
        if len(scales) > 1:
            yield (
                label(concat),
                f"its inputs have {len(scales)} scales from {min(scales):.4g} to {max(scales):.4g}",
                "use the largest scale for all branches, and check the agreement",
            )


def unfolded_batch_norms(view: View) -> Iterator[Fault]:
    """It should be folded into the layer that only it reads, before the weights are quantized."""
    for norm in view.nodes("BatchNormalization"):
        producer = view.wires.producers.get(norm.input[0])
        alone = view.wires.only_consumer(norm.input[0]) is not None
        if alone and producer is not None and producer.op_type in ("Conv", "Gemm"):
            yield label(norm), f"it is not folded into {label(producer)}", "fold it before quantization"


def no_op_pools(view: View) -> Iterator[Fault]:
    """A 1x1 window with stride 1 copies its input and prevents fusion of its neighbors."""
    for pool in view.nodes("AveragePool", "MaxPool"):
        kernel, strides = attribute(pool, "kernel_shape"), attribute(pool, "strides", [])
        if set(kernel) | set(strides) == {1} and not any(attribute(pool, "pads", [])):
            yield label(pool), f"its window is {'x'.join(map(str, kernel))} with stride 1", "remove it"


def several_quantizers(view: View) -> Iterator[Fault]:
    """One Q/DQ pair can serve all readers; several cost one kernel each."""
    for name, readers in view.wires.consumers.items():
        quantizers = [r for r in readers if r.op_type == QUANTIZE and r.input[0] == name]
        if len(quantizers) > 1:
            yield (
                name,
                f"{len(quantizers)} QuantizeLinear nodes read it",
                "share one Q/DQ pair",
            )


def _int8_convs(view: View) -> Iterator[tuple[NodeProto, int, tuple[int, ...]]]:
    """INT8 convolutions with groups and weight shape (outputs, inputs per group, kernel)."""
    for conv in view.int8_convs():
        yield conv, attribute(conv, "group", 1), view.weight_shape(conv)
