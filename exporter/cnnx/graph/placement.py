"""Which layer runs in which precision, and why: decided on the FP32 graph, before anything is rewritten.

The rules are those TensorRT's documentation and ModelOpt give for explicit quantization; each layer's
plan carries the rule that decided and the reason in words, which end up in the manifest.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import ModelProto, NodeProto

from cnnx.errors import RecipeError
from cnnx.graph import edit
from cnnx.graph.edit import ACTIVATIONS, ValueType, Wiring
from cnnx.recipe import LayerOverride, Precision, PrecisionPolicy, Scales

FP16_MAX = 65504.0

# Their sums of squares or exponentials leave FP16's range or its resolution.
WIDE_OPS = frozenset({"LRN", "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization"})

REASONS = {
    "asked": "{detail} was asked for",
    "override": "{detail} (an override)",
    "wide-op": "{detail} sums squares or exponentials, which FP16 cannot hold",
    "wide-activation": "{detail}",
    "wide-constant": "{detail}",
    "weighted": "its weights and its input are quantized",
    "small-layer": "too small to gain from INT8: {detail}",
    "small-layer-kept": "too small to gain from INT8, quantized because the recipe says so: {detail}",
    "group-channels": "TensorRT wants a multiple of 4 channels in a group for INT8, this has {detail}",
    "residual": "its shortcut is quantized, so that the convolution it follows stays INT8",
    "island-activation": "the FP32 island of {detail} would be merged back into FP16 without it",
    "no-range": "{detail}, so its input cannot be quantized",
    "follows": "it has no weights to quantize",
    "scales": "FP32 scales keep everything that is not INT8 in FP32",
}


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Precision of one node.

    Attributes:
        node: name of the ONNX node.
        op: its operator.
        precision: type its data arrives in; "int8" layers compute and give out the type of their scales.
        reason: why, in words.
        rule: key of `REASONS`.
    """

    node: str
    op: str
    precision: Precision
    reason: str
    rule: str


# The rule that decided, the precision it gives, and what fills in the rule's reason.
_Verdict = tuple[str, Precision, str]


@dataclass(frozen=True, slots=True)
class _Context:
    """What the rules look at. `base` is the precision of all that is neither INT8 nor an island."""

    graph: Wiring
    types: Mapping[str, ValueType]
    maxima: Mapping[str, float] | None
    policy: PrecisionPolicy
    precision: Precision
    base: Precision
    graph_inputs: frozenset[str]
    outputs: Mapping[str, Sequence[str]]
    wide_constants: Mapping[str, float]


def plan_layers(
    model: ModelProto,
    *,
    precision: Precision,
    policy: PrecisionPolicy,
    maxima: Mapping[str, float] | None,
    scales: Scales = "fp16",
) -> tuple[LayerPlan, ...]:
    """Precision of every node, in graph order.

    Args:
        model: FP32 graph whose nodes have unique names; it is not changed.
        precision: what was asked of the network as a whole.
        policy: the recipe's.
        maxima: largest absolute value of each activation over the calibration images. Activations that
            are not in it are taken to fit FP16, and are not quantized. None before calibration: every
            activation is taken to have a range, which shows what must be calibrated.
        scales: type of the Q/DQ scales; "fp32" keeps all that is not INT8 in FP32.

    Raises:
        RecipeError: an override matches no node.
    """
    _refuse_idle_overrides(policy.overrides, [node.name for node in model.graph.node])
    wide = precision == "fp32" or (precision == "int8" and scales == "fp32")
    context = _Context(
        graph=edit.wiring(model.graph),
        types=edit.value_types(model),
        maxima=maxima,
        policy=policy,
        precision=precision,
        base="fp32" if wide else "fp16",
        graph_inputs=frozenset(value.name for value in edit.data_inputs(model.graph)),
        outputs={node.name: tuple(node.output) for node in model.graph.node},
        wide_constants={} if wide else _wide_constants(model),
    )
    plan = tuple(_plan(node, context) for node in model.graph.node)
    if context.base == "fp16":
        plan = _with_island_activations(plan, context)
    return _with_residuals(model, plan, context) if precision == "int8" else plan


def tensors_to_calibrate(model: ModelProto, plan: Sequence[LayerPlan]) -> tuple[str, ...]:
    """Activations that will carry Q/DQ, in the order they are first read: the keys of `quantized_uses`."""
    return tuple(quantized_uses(model, plan))


def quantized_uses(model: ModelProto, plan: Sequence[LayerPlan]) -> dict[str, tuple[str, ...]]:
    """Activation -> names of the nodes that read it through Q/DQ.

    Those are the inputs of INT8 layers, and the shortcuts of the Adds whose rule is "residual".
    """
    layers = {layer.node: layer for layer in plan}
    shortcuts = _shortcuts(model, plan)
    uses: dict[str, list[str]] = {}
    for node in model.graph.node:
        if layers[node.name].precision == "int8":
            uses.setdefault(node.input[0], []).append(node.name)
        elif layers[node.name].rule == "residual":
            uses.setdefault(shortcuts[node.name], []).append(node.name)
    return {tensor: tuple(nodes) for tensor, nodes in uses.items()}


def _plan(node: NodeProto, context: _Context) -> LayerPlan:
    verdicts = (rule(node, context) for rule in _RULES)
    rule, precision, detail = next(verdict for verdict in verdicts if verdict is not None)
    reason = REASONS[rule].format(detail=detail)
    return LayerPlan(node=node.name, op=node.op_type, precision=precision, reason=reason, rule=rule)


def _asked_fp32(_node: NodeProto, context: _Context) -> _Verdict | None:
    return ("asked", "fp32", "fp32") if context.precision == "fp32" else None


def _override(node: NodeProto, context: _Context) -> _Verdict | None:
    matching = [entry for entry in context.policy.overrides if fnmatchcase(node.name, entry.match)]
    if not matching:
        return None
    choice, reason = matching[-1].precision, matching[-1].reason
    if choice == "int8":  # a pattern such as "features.*" also matches layers that INT8 has no use for
        fits = context.precision == "int8" and _weighted(node, context) and not _range_fault(node, context)
        return ("override", "int8", reason) if fits else None
    return "override", "fp32" if choice == "fp32" else context.base, reason


def _wide_op(node: NodeProto, _context: _Context) -> _Verdict | None:
    return ("wide-op", "fp32", node.op_type) if node.op_type in WIDE_OPS else None


def _wide_constant(node: NodeProto, context: _Context) -> _Verdict | None:
    for name in node.input:
        if name in context.wide_constants:
            return (
                "wide-constant",
                "fp32",
                f"{name} reaches {context.wide_constants[name]:.4g}, FP16 ends at 65504",
            )
    return None


def _wide_activation(node: NodeProto, context: _Context) -> _Verdict | None:
    limit = context.policy.fp16_limit
    if context.base == "fp32":
        return None
    for name in (*node.input, *node.output):
        found = (context.maxima or {}).get(name, 0.0)
        if not found <= limit:  # so that NaN counts
            return "wide-activation", "fp32", f"{name} reaches {found:.4g}, above {limit:g}"
    return None


def _asked_fp16(_node: NodeProto, context: _Context) -> _Verdict | None:
    return ("asked", "fp16", "fp16") if context.precision == "fp16" else None


def _unweighted(node: NodeProto, context: _Context) -> _Verdict | None:
    if _weighted(node, context):
        return None
    return "scales" if context.base == "fp32" else "follows", context.base, ""


def _no_range(node: NodeProto, context: _Context) -> _Verdict | None:
    fault = _range_fault(node, context)
    return ("no-range", context.base, fault) if fault else None


def _group_channels(node: NodeProto, context: _Context) -> _Verdict | None:
    group = edit.attribute(node, "group", 1)
    if node.op_type != "Conv" or group == 1:
        return None
    channels = context.graph.initializers[node.input[1]].dims[1]
    return None if channels % 4 == 0 else ("group-channels", context.base, str(channels))


def _small_layer(node: NodeProto, context: _Context) -> _Verdict | None:
    if node.op_type != "Conv":
        return None
    weight = context.graph.initializers[node.input[1]]
    size = edit.small_conv(node, weight.dims, first=node.input[0] in context.graph_inputs)
    if size is None:
        return None
    if context.policy.small_layers == "int8":
        return "small-layer-kept", "int8", context.policy.small_layers_reason
    return "small-layer", context.base, size


def _quantized(_node: NodeProto, _context: _Context) -> _Verdict:
    return "weighted", "int8", ""


# The first that has a verdict decides.
_RULES: tuple[Callable[[NodeProto, _Context], _Verdict | None], ...] = (
    _asked_fp32,
    _override,
    _wide_op,
    _wide_constant,
    _wide_activation,
    _asked_fp16,
    _unweighted,
    _no_range,
    _group_channels,
    _small_layer,
    _quantized,
)


def _weighted(node: NodeProto, context: _Context) -> bool:
    return edit.weight_axis(node, context.graph.initializers) is not None


def _range_fault(node: NodeProto, context: _Context) -> str:
    """Why a node's first input cannot be quantized, "" where it can."""
    return _tensor_fault(node.input[0], context)


def _tensor_fault(tensor: str, context: _Context) -> str:
    if context.maxima is None:
        return ""
    found = context.maxima.get(tensor)
    if found is None:
        return f"no range was recorded for {tensor}"
    if not math.isfinite(found):
        return f"{tensor} was not finite on the calibration images"
    return "" if found > 0 else f"{tensor} was zero on every calibration image"


def _with_island_activations(plan: tuple[LayerPlan, ...], context: _Context) -> tuple[LayerPlan, ...]:
    """Take the activation after an FP32 weighted layer into its island.

    TensorRT for RTX 1.7.1 compiles Cast, FP32 Conv, Cast into one FP16 kernel, strongly typed or not; with
    the activation inside, the island stays FP32.
    """
    islands = {layer.node for layer in plan if layer.precision == "fp32"}
    settled = {layer.node for layer in plan if layer.rule == "override"} | islands
    found: dict[str, str] = {}
    for name in islands:
        for output in context.outputs[name]:
            reader = context.graph.only_consumer(output)
            if reader is not None and reader.op_type in ACTIVATIONS and reader.name not in settled:
                found[reader.name] = name
    return tuple(
        dataclasses.replace(
            layer,
            precision="fp32",
            rule="island-activation",
            reason=REASONS["island-activation"].format(detail=found[layer.node]),
        )
        if layer.node in found
        else layer
        for layer in plan
    )


def _with_residuals(
    model: ModelProto, plan: tuple[LayerPlan, ...], context: _Context
) -> tuple[LayerPlan, ...]:
    shortcuts = _shortcuts(model, plan)
    return tuple(
        dataclasses.replace(layer, rule="residual", reason=REASONS["residual"])
        if layer.rule in ("follows", "scales")
        and layer.node in shortcuts
        and not _tensor_fault(shortcuts[layer.node], context)
        else layer
        for layer in plan
    )


def _shortcuts(model: ModelProto, plan: Sequence[LayerPlan]) -> dict[str, str]:
    """Add -> the one of its inputs that is the shortcut, where the other comes from an INT8 convolution.

    That convolution must feed the Add directly and nothing else, as TensorRT fuses the two then. Where
    both inputs are such convolutions (a block with a projection), the one with fewer layers behind it is
    the shortcut.
    """
    int8 = {layer.node for layer in plan if layer.precision == "int8"}
    graph, types, depths = edit.wiring(model.graph), edit.value_types(model), _depths(model)

    def fusable(tensor: str, add: NodeProto) -> bool:
        conv = graph.producers.get(tensor)
        only = graph.only_consumer(tensor)
        if conv is None or only is None:
            return False
        return conv.op_type == "Conv" and conv.name in int8 and only.name == add.name

    found = {}
    for node in model.graph.node:
        if node.op_type != "Add" or not _joins_feature_maps(node, graph, types):
            continue
        branches = [tensor for tensor in node.input if fusable(tensor, node)]
        if branches:
            main = max(branches, key=lambda tensor: depths[tensor])
            found[node.name] = next(tensor for tensor in node.input if tensor != main)
    return found


def _joins_feature_maps(node: NodeProto, graph: Wiring, types: Mapping[str, ValueType]) -> bool:
    left, right = node.input
    if left == right or left in graph.initializers or right in graph.initializers:
        return False
    kinds = types.get(left), types.get(right)
    return all(kind is not None and kind.rank == 4 for kind in kinds) and kinds[0] == kinds[1]


def _depths(model: ModelProto) -> dict[str, int]:
    """Longest number of nodes between the graph's inputs and each tensor."""
    depths: dict[str, int] = {}
    for node in model.graph.node:
        depth = 1 + max((depths.get(name, 0) for name in node.input), default=0)
        depths.update(dict.fromkeys(node.output, depth))
    return depths


def _wide_constants(model: ModelProto) -> dict[str, float]:
    """Constants that FP16 cannot hold, with their largest absolute value."""
    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == edit.FLOAT and math.prod(tensor.dims):
            values = edit.array(tensor)
            largest = float(max(values.max(), -values.min()))
            if largest > FP16_MAX:
                found[tensor.name] = largest
    return found


def _refuse_idle_overrides(overrides: Sequence[LayerOverride], nodes: Sequence[str]) -> None:
    """A pattern that matches nothing is a typing slip, or belongs to another network."""
    for entry in overrides:
        if not any(fnmatchcase(name, entry.match) for name in nodes):
            near = difflib.get_close_matches(entry.match, nodes, n=3, cutoff=0.3)
            raise RecipeError(
                f"the precision override {entry.match!r} matches no layer",
                where="precision.overrides",
                mend=f"layers of similar name: {', '.join(near or nodes[:3])}",
            )
