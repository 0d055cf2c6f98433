"""Rules for the precision of a layer.

`RULES` is the complete policy. It follows TensorRT for every target, as all targets share one graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import NodeProto

from cnnx.graph import edit
from cnnx.graph.policy.context import LEVELS, Context
from cnnx.options import Precision

FP16_MAX = 65504.0

# A tensor below this has fewer steps in FP16 than in an INT8 range.
_FP16_NARROW = LEVELS * 2.0**-24

# Their sums of squares or exponentials exceed the range or resolution of FP16, even if their inputs and
# outputs do not: the norm of 64 values of 60 is 480, the sum of their squares 230,400.
WIDE_OPS = frozenset(
    {
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "LpPool",
        "GlobalLpPool",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceSumSquare",
        "Softmax",
    }
)

# The chosen precision, and the detail for the reason.
Decision = tuple[Precision, str]


@dataclass(frozen=True, slots=True)
class PrecisionRule:
    """A rule that chooses a precision.

    Attributes:
        name: name in plans, manifests and `cnnx inspect`.
        reason: reason in a layer's plan; {detail} is filled in by `decide`.
        because: rationale of the rule, with its source.
        briefly: the reason without details of one layer, where layers are counted by it.
        decide: returns the precision of a node and the detail, or None if the rule does not apply. None for
            the rules applied last, which depend on the precision of neighboring layers.
    """

    name: str
    reason: str
    because: str
    briefly: str
    decide: Callable[[NodeProto, Context], Decision | None] | None = None


def _asked(_node: NodeProto, context: Context) -> Decision | None:
    return ("fp32", "fp32") if context.precision == "fp32" else None


def _override(node: NodeProto, context: Context) -> Decision | None:
    matching = [entry for entry in context.policy.overrides if fnmatchcase(node.name, entry.match)]
    if not matching:
        return None
    choice, reason = matching[-1].precision, matching[-1].reason
    if choice == "int8":  # a pattern such as "features.*" also matches layers that cannot use INT8
        fits = context.precision == "int8" and _weighted(node, context)
        faulty = fits and (_no_scale(node, context) or _range_fault(node, context))
        return ("int8", reason) if fits and not faulty else None
    return "fp32" if choice == "fp32" else context.base, reason


def _wide_op(node: NodeProto, _context: Context) -> Decision | None:
    return ("fp32", node.op_type) if node.op_type in WIDE_OPS else None


def _wide_constant(node: NodeProto, context: Context) -> Decision | None:
    if context.base == "fp32":
        return None
    for name in node.input:
        if (found := context.constants.get(name, 0.0)) > FP16_MAX:
            return "fp32", f"{name} reaches {found:.4g}, above the FP16 maximum of 65504"
    return None


def _wide_activation(node: NodeProto, context: Context) -> Decision | None:
    limit = context.policy.fp16_limit
    if context.base == "fp32":
        return None
    for name in (*node.input, *node.output):
        found = (context.maxima or {}).get(name, 0.0)
        if not found <= limit:  # also true for NaN
            return "fp32", f"{name} reaches {found:.4g}, above {limit:g}"
    return None


def _narrow(node: NodeProto, context: Context) -> Decision | None:
    """A tensor whose values are all among the smallest FP16 subnormals, or below them."""
    if context.base == "fp32":
        return None
    maxima = context.maxima or {}
    for name in (*node.input, *node.output):
        weight = context.constants.get(name, 0.0) if name in context.weights else 0.0
        found = maxima.get(name, weight)
        if 0 < found < _FP16_NARROW:
            return "fp32", f"{name} reaches only {found:.2g}, and FP16 has steps of 6e-08"
    return None


def _asked_fp16(_node: NodeProto, context: Context) -> Decision | None:
    return ("fp16", "fp16") if context.precision == "fp16" else None


def _follows(node: NodeProto, context: Context) -> Decision | None:
    return None if context.base == "fp32" or _weighted(node, context) else (context.base, "")


def _scales(node: NodeProto, context: Context) -> Decision | None:
    return None if _weighted(node, context) else (context.base, "")


def _no_scale(node: NodeProto, context: Context) -> Decision | None:
    if context.kept is None:
        return None
    lacking = [
        *(["input"] if node.input[0] not in context.ranges else []),
        *(["weight"] if node.name not in context.kept else []),
    ]
    return (context.base, " and its ".join(lacking)) if lacking else None


def _no_range(node: NodeProto, context: Context) -> Decision | None:
    fault = _range_fault(node, context)
    return (context.base, fault) if fault else None


def _first_layer(node: NodeProto, context: Context) -> Decision | None:
    out = context.policy.first_layer == "fp16" and node.name in context.first
    return (context.base, context.policy.reason) if out else None


def _last_layer(node: NodeProto, context: Context) -> Decision | None:
    out = context.policy.last_layer == "fp16" and node.name in context.last
    return (context.base, context.policy.reason) if out else None


def _group_channels(node: NodeProto, context: Context) -> Decision | None:
    if edit.attribute(node, "group", 1) == 1:
        return None  # of weighted layers, only Conv has groups
    channels = context.graph.initializers[node.input[1]].dims[1]
    return None if channels % 4 == 0 else (context.base, str(channels))


def _small(node: NodeProto, context: Context) -> str | None:
    if node.op_type != "Conv":
        return None
    weight = context.graph.initializers[node.input[1]]
    return edit.small_conv(node, weight.dims, first=node.input[0] in context.graph_inputs)


def _small_layer_kept(node: NodeProto, context: Context) -> Decision | None:
    kept = context.policy.small_layers == "int8" and _small(node, context) is not None
    return ("int8", context.policy.reason) if kept else None


def _small_layer(node: NodeProto, context: Context) -> Decision | None:
    size = _small(node, context)
    return None if size is None else (context.base, size)


def _quantized(_node: NodeProto, _context: Context) -> Decision:
    return "int8", ""


_OVERRIDE = " (an override)"
_ACCURACY = "Accuracy loss by layer is measured, not assumed: docs/placement.md."
RULES: tuple[PrecisionRule, ...] = (
    PrecisionRule(
        "asked",
        "{detail} was requested",
        "One type was requested for the whole network.",
        "requested",
        _asked,
    ),
    PrecisionRule(
        "override",
        "{detail}" + _OVERRIDE,
        "The recipe or `--repair` sets it, with a reason.",
        "overrides",
        _override,
    ),
    PrecisionRule(
        "wide-op",
        "{detail} sums squares or exponentials, which may exceed FP16",
        "Their sums exceed the range or resolution of FP16.",
        "sums of squares or exponentials, which may exceed FP16",
        _wide_op,
    ),
    PrecisionRule(
        "wide-constant",
        "{detail}",
        "A constant above 65504 is infinite in FP16.",
        "constants above the FP16 maximum",
        _wide_constant,
    ),
    PrecisionRule(
        "wide-activation",
        "{detail}",
        "Unseen images may reach larger values, so a layer above half of the FP16 range stays in FP32.",
        "activations that may exceed FP16",
        _wide_activation,
    ),
    PrecisionRule(
        "narrow",
        "{detail}",
        "FP16 subnormals are 2**-24 apart: a tensor below 127 of them has fewer steps than in INT8.",
        "values too small for FP16",
        _narrow,
    ),
    PrecisionRule(
        "asked",
        "{detail} was requested",
        "One type was requested for the whole network.",
        "requested",
        _asked_fp16,
    ),
    PrecisionRule(
        "follows",
        "it has no weights to quantize",
        "TensorRT expects Q/DQ at the inputs of weighted layers. Max pooling commutes with Q/DQ, so TensorRT "
        "runs it in INT8 by itself. So does a concatenation, whose parts then share the following scale. "
        "Average pooling does not commute and is not quantized.",
        "products of two activations and layers without weights",
        _follows,
    ),
    PrecisionRule(
        "scales",
        "FP32 scales keep everything that is not INT8 in FP32",
        "In a strongly typed network, a DequantizeLinear outputs the type of its scale.",
        "FP32 scales",
        _scales,
    ),
    PrecisionRule(
        "no-scale",
        "the file gives no scale for its {detail}",
        "Whoever trained or quantized the network left this layer in floating point.",
        "no scale in the file",
        _no_scale,
    ),
    PrecisionRule(
        "no-range",
        "{detail}, so it cannot be quantized",
        "TensorRT refuses a scale of zero, no scale represents non-finite values, and an FP16 scale cannot "
        "represent a range below 127 * 2**-20.",
        "no usable range",
        _no_range,
    ),
    PrecisionRule("first-layer", "it reads the image: {detail}", _ACCURACY, "the first layer", _first_layer),
    PrecisionRule("last-layer", "it produces the logits: {detail}", _ACCURACY, "the last layer", _last_layer),
    PrecisionRule(
        "group-channels",
        "INT8 needs a multiple of 4 channels per group in TensorRT; this layer has {detail}",
        "TensorRT's documentation on grouped convolutions; depthwise convolutions have 1 and stay in FP16.",
        "channels per group that are not a multiple of 4, such as those of depthwise layers",
        _group_channels,
    ),
    PrecisionRule(
        "small-layer-kept",
        "too small to gain from INT8, but the recipe requests it: {detail}",
        "`precision.small_layers`, for users whose measurements differ.",
        "small layers",
        _small_layer_kept,
    ),
    PrecisionRule(
        "small-layer",
        "too small to gain from INT8: {detail}",
        "Thresholds of NVIDIA Model Optimizer (onnx/quantization): INT8 kernels take channels in eights.",
        "layers too small to gain from INT8",
        _small_layer,
    ),
    PrecisionRule(
        "weighted",
        "its weights and its input are quantized",
        "INT8 speeds up MACs.",
        "quantized layers",
        _quantized,
    ),
    PrecisionRule(
        "island-activation",
        "without it, the FP32 island of {detail} would be merged back into FP16",
        "TensorRT for RTX 1.7.1 compiles Cast, FP32 Conv, Cast to one FP16 kernel, even if strongly typed. "
        "With the activation inside, the island stays FP32.",
        "activations of FP32 islands",
    ),
    PrecisionRule(
        "residual",
        "its shortcut is quantized so that the convolution before it stays INT8",
        "TensorRT fuses a convolution with the sum after it, and runs both in INT8 only if the other input "
        "of the sum comes from Q/DQ (its documentation on residual connections).",
        "shortcuts",
    ),
)
"""In the order of evaluation; the last two are applied afterwards."""


_BRIEFLY = {rule.name: rule.briefly for rule in RULES}


def cause(rule: str, reason: str) -> str:
    """Why a layer has its precision, without what is about this layer alone: layers are counted by it.

    A search or a recipe gives the cause of an override: up to a colon, its reason is about all of its layers.
    """
    return reason.partition(":")[0].removesuffix(_OVERRIDE) if rule == "override" else _BRIEFLY[rule]


def _weighted(node: NodeProto, context: Context) -> bool:
    return edit.weight_axis(node, context.graph.initializers) is not None


def _range_fault(node: NodeProto, context: Context) -> str:
    """Why the first input or the weights of a weighted node cannot be quantized; "" if they can."""
    weight = context.constants.get(node.input[1], 0.0)
    if 0 < weight < context.narrowest:
        return _too_small(node.input[1], weight, context)
    return tensor_fault(node.input[0], context)


def tensor_fault(tensor: str, context: Context) -> str:
    """Why an activation cannot be quantized; "" if it can."""
    if context.kept is not None:
        found = context.ranges.get(tensor)
        if found is None:
            return f"the file gives no scale for {tensor}"
        return _too_small(tensor, found, context) if found < context.narrowest else ""
    if context.maxima is None:
        return ""
    found = context.maxima.get(tensor)
    if found is None:
        return f"no range was recorded for {tensor}"
    if not math.isfinite(found):
        return f"{tensor} was not finite on the calibration images"
    if 0 < found < context.narrowest:
        return _too_small(tensor, found, context)
    return "" if found > 0 else f"{tensor} was zero on every calibration image"


def _too_small(tensor: str, found: float, context: Context) -> str:
    return f"{tensor} reaches only {found:.2g}, below the smallest range of a scale, {context.narrowest:.2g}"
