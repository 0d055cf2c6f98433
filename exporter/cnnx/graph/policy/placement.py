"""Chooses the precision of each layer of an FP32 graph before it is rewritten.

The plan of a layer has the rule that chose its precision (`cnnx.graph.policy.rules`) and the reason. Both are
stored in the manifest.
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
from cnnx.graph.policy.context import Context, context_of
from cnnx.graph.policy.rules import RULES, tensor_fault
from cnnx.graph.scales import FileScales
from cnnx.options import Precision, Scales
from cnnx.recipe import PrecisionPolicy


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Precision of one node.

    Attributes:
        node: name of the ONNX node.
        op: operator of the node.
        precision: type of its input data; "int8" layers output the type of their scales.
        reason: why it has this precision.
        rule: name of a rule in `RULES`.
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
    of_file: FileScales | None = None,
) -> tuple[LayerPlan, ...]:
    """Choose the precision of every node, in graph order.

    Args:
        model: FP32 graph whose nodes have unique names; it is not changed.
        precision: requested precision of the network.
        policy: precision policy of the recipe.
        maxima: largest absolute value of each activation over the calibration images. Missing activations are
            assumed to fit FP16 and are not quantized. None before calibration: every activation is assumed to
            have a range, which shows what must be calibrated.
        scales: type of the Q/DQ scales; "fp32" keeps everything that is not INT8 in FP32.
        of_file: scales of the file, if activations and weights keep them: what has none is not quantized.

    Raises:
        RecipeError: an override matches no node.
    """
    names = [node.name for node in model.graph.node]
    refuse_idle([each.match for each in policy.overrides], names, where="precision.overrides")
    context = context_of(
        model, precision=precision, policy=policy, maxima=maxima, scales=scales, of_file=of_file
    )
    plan = tuple(_plan(node, context) for node in model.graph.node)
    if context.base == "fp16":
        plan = _with_island_activations(plan, context)
    if precision == "int8" and policy.residual == "int8":
        plan = _with_residuals(model, plan, context)
    return plan


def tensors_to_calibrate(model: ModelProto, plan: Sequence[LayerPlan]) -> tuple[str, ...]:
    """Activations that will get Q/DQ, in the order of their first use: the keys of `quantized_uses`."""
    return tuple(quantized_uses(model, plan))


def tensors_to_observe(model: ModelProto, plan: Sequence[LayerPlan]) -> tuple[str, ...]:
    """Activations that may get Q/DQ if some INT8 layers of the plan change their type.

    These are `tensors_to_calibrate` and both inputs of each sum of two convolutions (a block with a
    projection), as either may become the shortcut.
    """
    sides = (side for branches in _fusable(model, plan).values() if len(branches) > 1 for side in branches)
    return tuple(dict.fromkeys((*tensors_to_calibrate(model, plan), *sides)))


def reading_images(model: ModelProto, plan: Sequence[LayerPlan]) -> tuple[str, ...]:
    """INT8 convolutions without groups that read an image itself."""
    images = {value.name for value in edit.data_inputs(model.graph)}
    int8 = {layer.node for layer in plan if layer.precision == "int8"}
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.name in int8
        and node.input[0] in images
        and edit.attribute(node, "group", 1) == 1
    )


def quantized_uses(model: ModelProto, plan: Sequence[LayerPlan]) -> dict[str, tuple[str, ...]]:
    """Activation -> names of the nodes that read it through Q/DQ.

    These are the inputs of INT8 layers and the shortcuts of Adds with the rule "residual".
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
    """Plan of a node by the first rule that applies."""
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
    """Keep the activation after an FP32 layer in the same FP32 island."""
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
    """Add -> the input that is the shortcut, if the other input can be fused with the Add.

    If both can be fused (a block with a projection), the branch with fewer layers is the shortcut.
    """
    depths, inputs = _depths(model), {node.name: node.input for node in model.graph.node}
    found = {}
    for add, branches in _fusable(model, plan).items():
        main = max(branches, key=lambda tensor: depths[tensor])
        found[add] = next(tensor for tensor in inputs[add] if tensor != main)
    return found


def _fusable(model: ModelProto, plan: Sequence[LayerPlan]) -> dict[str, list[str]]:
    """Add -> inputs that come from an INT8 convolution; Adds without such inputs are omitted.

    The Add must be the only reader of the convolution, as TensorRT fuses the two only then.
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
    if left in graph.initializers or right in graph.initializers:
        return False
    kinds = types.get(left), types.get(right)
    return all(kind is not None and kind.rank == 4 for kind in kinds) and kinds[0] == kinds[1]


def _depths(model: ModelProto) -> dict[str, int]:
    """Largest number of nodes between the graph inputs and each tensor."""
    depths: dict[str, int] = {}
    for node in model.graph.node:
        depth = 1 + max((depths.get(name, 0) for name in node.input), default=0)
        depths.update(dict.fromkeys(node.output, depth))
    return depths


def refuse_idle(patterns: Sequence[str], nodes: Sequence[str], *, where: str) -> None:
    """Refuse a pattern that matches no layer: a typo, or written for another network.

    Raises:
        RecipeError: one does; `where` is its key in the recipe.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in nodes):
            near = difflib.get_close_matches(pattern, nodes, n=3, cutoff=0.3)
            raise RecipeError(
                f"the override {pattern!r} matches no layer",
                where=where,
                hint=f"use a layer name such as {', '.join(near or nodes[:3])}",
            )
