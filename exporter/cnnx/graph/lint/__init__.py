"""Linter for ONNX graphs that TensorRT would refuse, misread or run slowly.

An error means that TensorRT's parser refuses the graph or, worse, misinterprets it. A warning means that
TensorRT reads the graph but does not fuse it as intended. Actual fusion is known only on the device, so the
rules check structure alone. To add a rule, write a function and list it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from cnnx.errors import GraphError
from cnnx.graph.edit import check, value_types, wiring
from cnnx.graph.lint import refused, slow
from cnnx.graph.lint.view import Fault, View

Severity = Literal["error", "warning"]

_LISTED = 10


@dataclass(frozen=True, slots=True)
class LintFinding:
    """A fault found in a graph.

    Attributes:
        rule: name of a rule in `RULES`.
        severity: "error" if TensorRT refuses or misreads the graph, "warning" if it runs slowly.
        node: node or tensor at fault.
        message: what is wrong, with the value.
        hint: hint that says what to change.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class LintRule:
    """Name and severity of a rule, and the function that yields its faults."""

    name: str
    severity: Severity
    look: Callable[[View], Iterator[Fault]]


# Rules for any graph, including graphs that violate the ONNX specification.
_FIRST = (
    LintRule("versions", "error", refused.versions),
    LintRule("unknown-operator", "error", refused.unknown_operators),
)
RULES = (
    *_FIRST,
    LintRule("unsupported-operator", "error", refused.unsupported_operators),
    LintRule("external-data", "error", refused.external_data),
    LintRule("float64", "error", refused.float64),
    LintRule("dynamic-shape", "error", refused.dynamic_shapes),
    LintRule("lrn-window", "error", refused.lrn_windows),
    LintRule("pool-ceil", "error", refused.pools_past_the_end),
    LintRule("quantized-type", "error", refused.quantized_types),
    LintRule("int32-bias", "error", refused.int32_biases),
    LintRule("zero-point", "error", refused.zero_points),
    LintRule("scale-not-constant", "error", refused.scales_not_constant),
    LintRule("scale-value", "error", refused.scale_values),
    LintRule("scale-mismatch", "error", refused.scale_mismatches),
    LintRule("block-quantization", "error", refused.block_quantization),
    LintRule("activation-per-channel", "error", refused.activations_per_channel),
    LintRule("weight-axis", "error", refused.weight_axes),
    LintRule("unpaired", "error", refused.unpaired),
    LintRule("unfamiliar-operator", "warning", slow.unfamiliar_operators),
    LintRule("quantized-before-relu", "warning", slow.quantized_before_relu),
    LintRule("shortcut-not-quantized", "warning", slow.shortcuts_not_quantized),
    LintRule("fp32-scales", "warning", slow.fp32_scales),
    LintRule("subnormal-scale", "warning", slow.subnormal_scales),
    LintRule("group-channels", "warning", slow.group_channels),
    LintRule("depthwise", "warning", slow.depthwise),
    LintRule("small-layer", "warning", slow.small_layers),
    LintRule("average-pool", "warning", slow.average_pools),
    LintRule("concat-scales", "warning", slow.concat_scales),
    LintRule("batch-norm", "warning", slow.unfolded_batch_norms),
    LintRule("no-op-pool", "warning", slow.no_op_pools),
    LintRule("several-quantizers", "warning", slow.several_quantizers),
)


def lint(model: ModelProto) -> tuple[LintFinding, ...]:
    """Check a graph against all `RULES`; findings are in the order of the rules, then of the graph.

    A graph that violates the ONNX specification gets only the finding "invalid", or the more specific
    findings "versions" and "unknown-operator".

    Raises:
        GraphError: the stored values of a scale or zero point do not match its shape.
    """
    wires = wiring(model.graph)
    try:
        check(model)
        view = View(model, wires, value_types(model))
    except GraphError as error:
        specific = _look(_FIRST, View(model, wires, {}))
        location = str(error.where).partition(" ")[2]  # without the word "node", "tensor" or "graph"
        return specific or (LintFinding("invalid", "error", location, error.what, str(error.hint)),)
    return _look(RULES, view)


def _look(rules: tuple[LintRule, ...], view: View) -> tuple[LintFinding, ...]:
    return tuple(LintFinding(rule.name, rule.severity, *fault) for rule in rules for fault in rule.look(view))


def refuse(findings: Iterable[LintFinding], *, where: Path | str) -> None:
    """Refuse a graph with lint errors; warnings are ignored.

    Raises:
        GraphError: there are errors; the message lists the first ten, each with a hint.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    lines = [f"  {e.rule}: {e.node}: {e.message} ({e.hint})" for e in errors[:_LISTED]]
    if len(errors) > _LISTED:
        lines.append(f"  and {len(errors) - _LISTED} more")
    count = f"{len(errors)} faults" if len(errors) > 1 else "a fault"
    raise GraphError(
        "\n".join((f"the graph has {count} that TensorRT would refuse or misread:", *lines)),
        where=where,
        hint=errors[0].hint,
    )
