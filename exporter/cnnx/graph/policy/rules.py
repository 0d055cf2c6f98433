"""The policy: which precision a layer gets, and why.

`RULES` is all of it, TensorRT's for every target: a bundle has one graph for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import ModelProto, NodeProto

from cnnx.graph import edit
from cnnx.graph.edit import Wiring
from cnnx.options import Precision, Scales
from cnnx.recipe import PrecisionPolicy

FP16_MAX = 65504.0

# FP16 subnormals lie 2**-24 apart. At the floor rounding a scale up costs a sixteenth of it at most. FP32's
# floor is its smallest normal number.
SCALE_FLOORS: dict[Scales, float] = {"fp16": 2.0**-20, "fp32": 2.0**-126}
_LEVELS = 127
# A tensor below it has fewer steps in FP16 than an INT8 range has.
_FP16_NARROW = _LEVELS * 2.0**-24

# Their sums of squares or exponentials leave FP16's range or its resolution.
WIDE_OPS = frozenset({"LRN", "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization"})

# The precision that a rule gives, and what fills in its reason.
Decision = tuple[Precision, str]


@dataclass(frozen=True, slots=True)
class Context:
    """What the rules look at.

    Attributes:
        base: the precision of all that is neither INT8 nor an island.
        constants: largest absolute value of each float constant.
        weights: those constants that have two axes or more.
        first: layers with weights that read a graph input.
        last: those that give a graph output.
    """

    graph: Wiring
    maxima: Mapping[str, float] | None
    policy: PrecisionPolicy
    precision: Precision
    base: Precision
    graph_inputs: frozenset[str]
    outputs: Mapping[str, Sequence[str]]
    constants: Mapping[str, float]
    weights: frozenset[str]
    first: frozenset[str]
    last: frozenset[str]

    @property
    def narrowest(self) -> float:
        """The smallest range that a scale of the network's type can stand for."""
        return _LEVELS * SCALE_FLOORS["fp32" if self.base == "fp32" else "fp16"]


@dataclass(frozen=True, slots=True)
class PrecisionRule:
    """One choice of precision.

    Attributes:
        name: as plans, manifests and `cnnx inspect` call it.
        reason: what a layer's plan says; {detail} is what the rule found.
        because: why the rule is held, with its source.
        decide: the precision of a node and the detail, or None where the rule has nothing to say of it. None
            for the rules that are applied last, for they look at their neighbours' precision.
    """

    name: str
    reason: str
    because: str
    decide: Callable[[NodeProto, Context], Decision | None] | None = None


def context_of(
    model: ModelProto,
    *,
    precision: Precision,
    policy: PrecisionPolicy,
    maxima: Mapping[str, float] | None,
    scales: Scales,
) -> Context:
    """What the rules look at, of this graph; arguments as those of `plan_layers`."""
    wide = precision == "fp32" or (precision == "int8" and scales == "fp32")
    return Context(
        graph=edit.wiring(model.graph),
        maxima=maxima,
        policy=policy,
        precision=precision,
        base="fp32" if wide else "fp16",
        graph_inputs=frozenset(value.name for value in edit.data_inputs(model.graph)),
        outputs={node.name: tuple(node.output) for node in model.graph.node},
        constants={} if precision == "fp32" else _largest(model),
        # A bias may be as small as it likes: it is added to what is larger.
        weights=frozenset(tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1),
        first=_first(model),
        last=_last(model),
    )


def _asked(_node: NodeProto, context: Context) -> Decision | None:
    return ("fp32", "fp32") if context.precision == "fp32" else None


def _override(node: NodeProto, context: Context) -> Decision | None:
    matching = [entry for entry in context.policy.overrides if fnmatchcase(node.name, entry.match)]
    if not matching:
        return None
    choice, reason = matching[-1].precision, matching[-1].reason
    if choice == "int8":  # a pattern such as "features.*" also matches layers that INT8 has no use for
        fits = context.precision == "int8" and _weighted(node, context) and not _range_fault(node, context)
        return ("int8", reason) if fits else None
    return "fp32" if choice == "fp32" else context.base, reason


def _wide_op(node: NodeProto, _context: Context) -> Decision | None:
    return ("fp32", node.op_type) if node.op_type in WIDE_OPS else None


def _wide_constant(node: NodeProto, context: Context) -> Decision | None:
    if context.base == "fp32":
        return None
    for name in node.input:
        if (found := context.constants.get(name, 0.0)) > FP16_MAX:
            return "fp32", f"{name} reaches {found:.4g}, FP16 ends at 65504"
    return None


def _wide_activation(node: NodeProto, context: Context) -> Decision | None:
    limit = context.policy.fp16_limit
    if context.base == "fp32":
        return None
    for name in (*node.input, *node.output):
        found = (context.maxima or {}).get(name, 0.0)
        if not found <= limit:  # so that NaN counts
            return "fp32", f"{name} reaches {found:.4g}, above {limit:g}"
    return None


def _narrow(node: NodeProto, context: Context) -> Decision | None:
    """All of a tensor among FP16's last subnormals, or below them."""
    if context.base == "fp32":
        return None
    maxima = context.maxima or {}
    for name in (*node.input, *node.output):
        weight = context.constants.get(name, 0.0) if name in context.weights else 0.0
        found = maxima.get(name, weight)
        if 0 < found < _FP16_NARROW:
            return "fp32", f"{name} reaches only {found:.2g}, FP16's steps are 6e-08"
    return None


def _asked_fp16(_node: NodeProto, context: Context) -> Decision | None:
    return ("fp16", "fp16") if context.precision == "fp16" else None


def _follows(node: NodeProto, context: Context) -> Decision | None:
    return None if context.base == "fp32" or _weighted(node, context) else (context.base, "")


def _scales(node: NodeProto, context: Context) -> Decision | None:
    return None if _weighted(node, context) else (context.base, "")


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
    group = edit.attribute(node, "group", 1)
    if node.op_type != "Conv" or group == 1:
        return None
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


_ACCURACY = "Which layers lose too much is measured, not ruled: docs/placement.md."
RULES: tuple[PrecisionRule, ...] = (
    PrecisionRule("asked", "{detail} was asked for", "The whole network was asked for in one type.", _asked),
    PrecisionRule(
        "override", "{detail} (an override)", "The recipe or `--repair` says so, with a reason.", _override
    ),
    PrecisionRule(
        "wide-op",
        "{detail} sums squares or exponentials, which FP16 cannot hold",
        "Their sums leave FP16's range or its resolution.",
        _wide_op,
    ),
    PrecisionRule(
        "wide-constant",
        "{detail}",
        "A constant beyond 65504 is infinite in FP16.",
        _wide_constant,
    ),
    PrecisionRule(
        "wide-activation",
        "{detail}",
        "Pictures that were not seen reach further: beyond half of what FP16 holds a layer stays in FP32.",
        _wide_activation,
    ),
    PrecisionRule(
        "narrow",
        "{detail}",
        "FP16's last subnormals lie 2**-24 apart: a tensor below 127 of them has fewer steps than in INT8.",
        _narrow,
    ),
    PrecisionRule(
        "asked", "{detail} was asked for", "The whole network was asked for in one type.", _asked_fp16
    ),
    PrecisionRule(
        "follows",
        "it has no weights to quantize",
        "TensorRT wants Q/DQ at the inputs of layers with weights. Max pooling commutes with it, so TensorRT "
        "runs it in INT8 by itself; so does a concatenation, whose parts then share the scale behind it. "
        "Average pooling does not commute, and stays.",
        _follows,
    ),
    PrecisionRule(
        "scales",
        "FP32 scales keep everything that is not INT8 in FP32",
        "In a strongly typed network a DequantizeLinear gives out the type of its scale.",
        _scales,
    ),
    PrecisionRule(
        "no-range",
        "{detail}, so it cannot be quantized",
        "TensorRT refuses a scale of zero, none stands for what is not finite, and an FP16 scale for nothing "
        "below 127 * 2**-20.",
        _no_range,
    ),
    PrecisionRule("first-layer", "it reads the picture: {detail}", _ACCURACY, _first_layer),
    PrecisionRule("last-layer", "it gives the logits: {detail}", _ACCURACY, _last_layer),
    PrecisionRule(
        "group-channels",
        "TensorRT wants a multiple of 4 channels in a group for INT8, this has {detail}",
        "TensorRT's documentation on grouped convolutions; depthwise ones have 1 and stay in FP16.",
        _group_channels,
    ),
    PrecisionRule(
        "small-layer-kept",
        "too small to gain from INT8, quantized because the recipe says so: {detail}",
        "`precision.small_layers`, for who measured otherwise.",
        _small_layer_kept,
    ),
    PrecisionRule(
        "small-layer",
        "too small to gain from INT8: {detail}",
        "NVIDIA Model Optimizer's thresholds (onnx/quantization): INT8 kernels work on channels by eights.",
        _small_layer,
    ),
    PrecisionRule(
        "weighted",
        "its weights and its input are quantized",
        "Multiply-adds are where INT8 pays.",
        _quantized,
    ),
    PrecisionRule(
        "island-activation",
        "the FP32 island of {detail} would be merged back into FP16 without it",
        "TensorRT for RTX 1.7.1 compiles Cast, FP32 Conv, Cast into one FP16 kernel, strongly typed or not; "
        "with the activation inside, the island stays FP32.",
    ),
    PrecisionRule(
        "residual",
        "its shortcut is quantized, so that the convolution it follows stays INT8",
        "TensorRT fuses a convolution with the sum behind it, and runs both in INT8 only where the other "
        "side of the sum comes through Q/DQ (its documentation on residual connections).",
    ),
)
"""In the order in which they are asked; the last two are applied afterwards."""


def _weighted(node: NodeProto, context: Context) -> bool:
    return edit.weight_axis(node, context.graph.initializers) is not None


def _range_fault(node: NodeProto, context: Context) -> str:
    """Why a weighted node's first input or its weights cannot be quantized, "" where they can."""
    weight = context.constants.get(node.input[1], 0.0)
    if 0 < weight < context.narrowest:
        return _too_small(node.input[1], weight, context)
    return tensor_fault(node.input[0], context)


def tensor_fault(tensor: str, context: Context) -> str:
    """Why an activation cannot be quantized, "" where it can."""
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
    return f"{tensor} reaches only {found:.2g}, a scale's least range is {context.narrowest:.2g}"


def _first(model: ModelProto) -> frozenset[str]:
    """Layers with weights that read a graph input, perhaps through others without."""
    raw = {value.name for value in edit.data_inputs(model.graph)}
    constants = edit.initializers(model.graph)
    found = set()
    for node in model.graph.node:
        if raw.isdisjoint(node.input):
            continue
        if edit.weight_axis(node, constants) is None:
            raw.update(node.output)
        else:
            found.add(node.name)
    return frozenset(found)


def _last(model: ModelProto) -> frozenset[str]:
    """Layers with weights whose output reaches a graph output, perhaps through others without."""
    given = {value.name for value in model.graph.output}
    constants = edit.initializers(model.graph)
    found = set()
    for node in reversed(model.graph.node):
        if given.isdisjoint(node.output):
            continue
        if edit.weight_axis(node, constants) is None:
            given.update(node.input)
        else:
            found.add(node.name)
    return frozenset(found)


def _largest(model: ModelProto) -> dict[str, float]:
    """Largest absolute value of each float constant."""
    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == edit.FLOAT and math.prod(tensor.dims):
            values = edit.array(tensor)
            found[tensor.name] = float(max(values.max(), -values.min()))
    return found
