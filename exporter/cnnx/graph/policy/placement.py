"""Which layer runs in which precision: decided on the FP32 graph, before anything is rewritten.

Each layer's plan carries the rule that decided (`cnnx.graph.policy.rules`) and its reason in words, which
end up in the manifest.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import ModelProto, NodeProto

from cnnx.errors import RecipeError
from cnnx.graph import edit
from cnnx.graph.edit import ACTIVATIONS, ValueType, Wiring
from cnnx.graph.policy.rules import RULES, Context, context_of, tensor_fault
from cnnx.options import Precision, Scales
from cnnx.recipe import LayerOverride, PrecisionPolicy


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Precision of one node.

    Attributes:
        node: name of the ONNX node.
        op: its operator.
        precision: type its data arrives in; "int8" layers compute and give out the type of their scales.
        reason: why, in words.
        rule: name of one of the `RULES`.
    """

    node: str
    op: str
    precision: Precision
    reason: str
    rule: str


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
    context = context_of(model, precision=precision, policy=policy, maxima=maxima, scales=scales)
    plan = tuple(_plan(node, context) for node in model.graph.node)
    if context.base == "fp16":
        plan = _with_island_activations(plan, context)
    if precision == "int8" and policy.residual == "int8":
        plan = _with_residuals(model, plan, context)
    return plan


def tensors_to_calibrate(model: ModelProto, plan: Sequence[LayerPlan]) -> tuple[str, ...]:
    """Activations that will carry Q/DQ, in the order they are first read: the keys of `quantized_uses`."""
    return tuple(quantized_uses(model, plan))


def tensors_to_observe(model: ModelProto, plan: Sequence[LayerPlan]) -> tuple[str, ...]:
    """Activations that Q/DQ may come to carry once some of the plan's INT8 layers are in another type.

    Beside those of `tensors_to_calibrate`, both sides of each sum of two convolutions (a block with a
    projection): either may turn out to be the shortcut.
    """
    sides = (side for branches in _fusable(model, plan).values() if len(branches) > 1 for side in branches)
    return tuple(dict.fromkeys((*tensors_to_calibrate(model, plan), *sides)))


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


def _plan(node: NodeProto, context: Context) -> LayerPlan:
    """The first rule with a verdict decides."""
    for rule in RULES:
        verdict = rule.decide(node, context) if rule.decide else None
        if verdict is not None:
            break
    else:
        raise AssertionError(f"no rule for {node.op_type}")
    precision, detail = verdict
    reason = rule.reason.format(detail=detail)
    return LayerPlan(node=node.name, op=node.op_type, precision=precision, reason=reason, rule=rule.name)


_REASONS = {rule.name: rule.reason for rule in RULES}


def _with_island_activations(plan: tuple[LayerPlan, ...], context: Context) -> tuple[LayerPlan, ...]:
    """Take the activation after an FP32 weighted layer into its island."""
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
            reason=_REASONS["island-activation"].format(detail=found[layer.node]),
        )
        if layer.node in found
        else layer
        for layer in plan
    )


def _with_residuals(
    model: ModelProto, plan: tuple[LayerPlan, ...], context: Context
) -> tuple[LayerPlan, ...]:
    shortcuts = _shortcuts(model, plan)
    return tuple(
        dataclasses.replace(layer, rule="residual", reason=_REASONS["residual"])
        if layer.rule in ("follows", "scales")
        and layer.node in shortcuts
        and not tensor_fault(shortcuts[layer.node], context)
        else layer
        for layer in plan
    )


def _shortcuts(model: ModelProto, plan: Sequence[LayerPlan]) -> dict[str, str]:
    """Add -> the one of its inputs that is the shortcut, where the other can be fused with it.

    Where both can (a block with a projection), the one with fewer layers behind it is the shortcut.
    """
    depths, inputs = _depths(model), {node.name: node.input for node in model.graph.node}
    found = {}
    for add, branches in _fusable(model, plan).items():
        main = max(branches, key=lambda tensor: depths[tensor])
        found[add] = next(tensor for tensor in inputs[add] if tensor != main)
    return found


def _fusable(model: ModelProto, plan: Sequence[LayerPlan]) -> dict[str, list[str]]:
    """Add -> those of its inputs that come from an INT8 convolution; Adds with none are left out.

    The convolution must feed the Add directly and nothing else, as TensorRT fuses the two then.
    """
    int8 = {layer.node for layer in plan if layer.precision == "int8"}
    graph, types = edit.wiring(model.graph), edit.value_types(model)

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
        if branches := [tensor for tensor in node.input if fusable(tensor, node)]:
            found[node.name] = branches
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
