"""Passes that simplify a graph without changing its function.

A pass edits the model in place, returns its number of changes, and declares how many nodes a change adds.
`run_pass` verifies the result: inputs and outputs are unchanged, the number of nodes is as declared, and
onnx's checker accepts the graph. The design follows the pass infrastructure of onnx/ir-py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.constants import constants_to_initializers, fold_constants
from cnnx.graph.edit import ValueType, Wiring

_REPORT = "this is a bug in cnnx: please report it with the graph"


@dataclass(frozen=True, slots=True)
class Pass:
    """One rewrite.

    Attributes:
        name: key of the pass in the counts that `simplify` returns.
        apply: function that edits the model in place and returns the number of changes.
        added_nodes: nodes added per change; negative if nodes are removed.
    """

    name: str
    apply: Callable[[ModelProto], int]
    added_nodes: int


def simplify(model: ModelProto, *, leave_out: Collection[str] = ()) -> dict[str, int]:
    """Run all passes until none changes the graph. Edits the model in place.

    Args:
        model: any valid graph.
        leave_out: names of passes to skip.

    Returns:
        Number of changes by pass name.

    Raises:
        GraphError: the graph is invalid, or a pass did not do what it declares.
    """
    passes = [rewrite for rewrite in PASSES if rewrite.name not in leave_out]
    counts = dict.fromkeys((rewrite.name for rewrite in passes), 0)
    changed = True
    while changed:
        found = {rewrite.name: run_pass(rewrite, model) for rewrite in passes}
        counts = {name: counts[name] + found[name] for name in counts}
        changed = any(found.values())
    return counts


def run_pass(rewrite: Pass, model: ModelProto) -> int:
    """Apply one pass in place and verify what it declares.

    Raises:
        GraphError: the inputs, outputs or number of nodes are not as declared, or the graph is invalid.
    """
    signature, nodes = _signature(model), len(model.graph.node)
    changes = rewrite.apply(model)
    if not changes and len(model.graph.node) == nodes:
        return 0
    if _signature(model) != signature:
        what = f"the pass {rewrite.name} changed the graph's inputs or outputs"
        raise GraphError(what, where=f"graph {model.graph.name}", hint=_REPORT)
    if len(model.graph.node) != nodes + changes * rewrite.added_nodes:
        what = f"the pass {rewrite.name} did not change the number of nodes as its {changes} changes should"
        raise GraphError(what, where=f"graph {model.graph.name}", hint=_REPORT)
    del model.graph.value_info[:]  # the tensors listed there may no longer exist
    edit.check(model)
    return changes


def _signature(model: ModelProto) -> tuple[bytes, ...]:
    values = (*edit.data_inputs(model.graph), *model.graph.output)
    return tuple(value.SerializeToString(deterministic=True) for value in values)


def fold_batch_norms(model: ModelProto) -> int:
    """Fold inference BatchNormalization into the Conv or Gemm before it, if nothing else reads that.

    y = g (Wx + b - m) / sqrt(v + eps) + beta is a layer with the weight g / sqrt(v + eps) W. It is computed
    in float64 and rounded once.
    """
    graph = edit.wiring(model.graph)
    folded: set[str] = set()
    for norm in model.graph.node:
        layer = foldable_layer(norm, graph)
        if layer is not None:
            _fold(model, norm, layer, graph)
            folded.add(norm.name)
            layer.output[0] = norm.output[0]
    edit.replace_nodes(model.graph, [n for n in model.graph.node if not _is_folded(n, folded)])
    return len(folded)


def _is_folded(node: NodeProto, folded: set[str]) -> bool:
    return node.op_type == "BatchNormalization" and node.name in folded


def foldable_layer(norm: NodeProto, graph: Wiring) -> NodeProto | None:
    """The Conv or Gemm that a BatchNormalization folds into; None for any other node."""
    if (
        norm.op_type != "BatchNormalization"
        or edit.attribute(norm, "training_mode", 0)
        or len(norm.output) != 1
    ):
        return None
    layer = graph.producers.get(norm.input[0])
    if layer is None or not _is_affine(layer, graph) or graph.only_consumer(layer.output[0]) is None:
        return None
    constants = [*norm.input[1:5], *filter(None, layer.input[1:])]
    return layer if all(name in graph.initializers for name in constants) else None


def _is_affine(layer: NodeProto, graph: Wiring) -> bool:
    """Whether a layer is a Conv, or a Gemm that computes W x + b without scaling."""
    if layer.op_type not in ("Conv", "Gemm") or edit.weight_axis(layer, graph.initializers) is None:
        return False
    if layer.op_type == "Conv":
        return True
    bias = graph.initializers.get(layer.input[2]) if len(layer.input) > 2 else None
    scales = [edit.attribute(layer, name, 1.0) for name in ("alpha", "beta")]
    return scales == [1.0, 1.0] and (bias is None or len(bias.dims) == 1)


def _fold(model: ModelProto, norm: NodeProto, layer: NodeProto, graph: Wiring) -> None:
    gamma, beta, mean, variance = (
        edit.array(graph.initializers[name]).astype(np.float64) for name in norm.input[1:5]
    )
    factor = gamma / np.sqrt(variance + edit.attribute(norm, "epsilon", 1e-5))
    weight = edit.array(graph.initializers[layer.input[1]])
    has_bias = len(layer.input) > 2 and layer.input[2]
    bias = edit.array(graph.initializers[layer.input[2]]) if has_bias else np.zeros(len(factor))
    along = [1] * weight.ndim
    axis = edit.weight_axis(layer, graph.initializers)
    assert axis is not None  # `foldable_layer` checked it
    along[axis] = len(factor)
    names = edit.Names(model.graph)
    inputs = [layer.input[0], layer.input[1], layer.input[2] if has_bias else ""]
    for index, values in ((1, weight * factor.reshape(along)), (2, (bias - mean) * factor + beta)):
        tensor = edit.tensor_from_array("", values.astype(weight.dtype))
        old = inputs[index]
        if len(graph.consumers.get(old, [])) == 1:
            tensor.name = old
            graph.initializers[old].CopyFrom(tensor)
        else:
            tensor.name = names.fresh(f"{old}.folded" if old else f"{layer.name}.bias")
            model.graph.initializer.append(tensor)
            inputs[index] = tensor.name
    del layer.input[:]
    layer.input.extend(inputs)


def remove_no_ops(model: ModelProto) -> int:
    """Remove nodes whose output equals their input; see `_NO_OPS`."""
    facts = _facts(model)
    kept = [n for n in model.graph.node if not (_is_idle(n, facts) and _bypass(model, n))]
    removed = len(model.graph.node) - len(kept)
    edit.replace_nodes(model.graph, kept)
    return removed


@dataclass(frozen=True, slots=True)
class _Facts:
    types: Mapping[str, ValueType]
    constants: Mapping[str, TensorProto]

    def shape(self, tensor: str) -> tuple[int | str | None, ...]:
        """Shape of a tensor, or () if its rank is unknown."""
        return self.types[tensor].shape or () if tensor in self.types else ()

    def integers(self, tensor: str) -> list[int] | None:
        """Values of a constant shape or list of axes; None if it is computed."""
        found = self.constants.get(tensor)
        return None if found is None else [int(value) for value in edit.array(found).reshape(-1)]


def _facts(model: ModelProto) -> _Facts:
    return _Facts(edit.value_types(model), edit.initializers(model.graph))


def _is_idle(node: NodeProto, facts: _Facts) -> bool:
    rule = _NO_OPS.get(node.op_type)
    return rule is not None and len(node.output) == 1 and rule(node, facts)


def _same_type(node: NodeProto, facts: _Facts) -> bool:
    source = facts.types.get(node.input[0])
    return source is not None and source.elem_type == edit.attribute(node, "to")


def _one_by_one_pool(node: NodeProto, _facts: _Facts) -> bool:
    lengths = (*edit.attribute(node, "kernel_shape"), *edit.attribute(node, "strides", []))
    return not any(edit.attribute(node, "pads", [])) and all(length == 1 for length in lengths)


def _same_shape(node: NodeProto, facts: _Facts) -> bool:
    before, after = facts.shape(node.input[0]), facts.shape(node.output[0])
    return bool(before) and before == after and None not in before


def _not_training(node: NodeProto, facts: _Facts) -> bool:
    training = node.input[2] if len(node.input) > 2 else ""
    return not training or facts.integers(training) == [0]


_NO_OPS: dict[str, Callable[[NodeProto, _Facts], bool]] = {
    "Identity": lambda _node, _facts: True,
    "Dropout": _not_training,
    "Cast": _same_type,
    "AveragePool": _one_by_one_pool,
    "MaxPool": _one_by_one_pool,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
}


def _bypass(model: ModelProto, node: NodeProto) -> bool:
    """Connect the readers of a node's output to its input; False if graph inputs or outputs prevent it."""
    graph = edit.wiring(model.graph)
    source, result = node.input[0], node.output[0]
    if result not in graph.outputs:
        edit.rename_input(graph.consumers.get(result, []), result, source)
        return True
    producer = graph.producers.get(source)
    if producer is None or source in graph.outputs:
        return False
    edit.rename_input(graph.consumers[source], source, result)
    producer.output[list(producer.output).index(source)] = result
    return True


def reduce_mean_to_pool(model: ModelProto) -> int:
    """Replace ReduceMean over height and width with keepdims by GlobalAveragePool, which DLA supports."""
    means = _spatial_means(model, keepdims=1)
    for node in means:
        _become(node, "GlobalAveragePool")
    return len(means)


def reduce_mean_to_flat_pool(model: ModelProto) -> int:
    """Replace ReduceMean over height and width without keepdims by GlobalAveragePool and Flatten."""
    means = {node.output[0] for node in _spatial_means(model, keepdims=0)}
    names, nodes = edit.Names(model.graph), []
    for node in model.graph.node:
        nodes.append(node)
        if node.output[0] in means:
            flat = helper.make_node(
                "Flatten", [names.fresh(f"{node.output[0]}.pool")], [node.output[0]], axis=1
            )
            flat.name = names.fresh(f"{node.name}.flatten")
            _become(node, "GlobalAveragePool")
            node.output[0] = flat.input[0]
            nodes.append(flat)
    edit.replace_nodes(model.graph, nodes)
    return len(means)


def _spatial_means(model: ModelProto, *, keepdims: int) -> list[NodeProto]:
    facts = _facts(model)
    return [
        node
        for node in model.graph.node
        if node.op_type == "ReduceMean"
        and edit.attribute(node, "keepdims", 1) == keepdims
        and len(facts.shape(node.input[0])) == 4
        and sorted(axis % 4 for axis in _axes(node, facts)) == [2, 3]
    ]


def _axes(node: NodeProto, facts: _Facts) -> list[int]:
    """Axes of a reduction: an attribute before opset 18, an input since."""
    if len(node.input) > 1 and node.input[1]:
        return facts.integers(node.input[1]) or []
    return list(edit.attribute(node, "axes", []))


def _become(node: NodeProto, op: str) -> None:
    """Turn a node into an operator with one input and no attributes."""
    node.op_type = op
    del node.attribute[:]
    del node.input[1:]


def reshape_to_flatten(model: ModelProto) -> int:
    """Replace a Reshape that flattens all axes but the batch by Flatten, which works for any batch."""
    facts = _facts(model)
    flat = [node for node in model.graph.node if node.op_type == "Reshape" and _is_flatten(node, facts)]
    for node in flat:
        _become(node, "Flatten")
        node.attribute.append(helper.make_attribute("axis", 1))
    return len(flat)


def _is_flatten(node: NodeProto, facts: _Facts) -> bool:
    target, (batch, *rest) = facts.integers(node.input[1]), facts.shape(node.input[0]) or (None,)
    lengths = [length for length in rest if isinstance(length, int)]
    if target is None or len(target) != 2 or not rest or len(lengths) != len(rest):
        return False
    joined = math.prod(lengths)
    keeps_batch = target[0] in (0, batch) or (target[0] == -1 and target[1] == joined)
    return keeps_batch and target[1] in (-1, joined)


def remove_dead_nodes(model: ModelProto) -> int:
    """Remove nodes whose outputs are not used."""
    return edit.drop_unread_nodes(model.graph)


def remove_unused_initializers(model: ModelProto) -> int:
    """Remove constants that are not used."""
    return edit.drop_unread_initializers(model.graph)


PASSES = (
    Pass("constants_to_initializers", constants_to_initializers, -1),
    Pass("fold_constants", fold_constants, -1),
    Pass("fold_batch_norms", fold_batch_norms, -1),
    Pass("remove_no_ops", remove_no_ops, -1),
    Pass("reduce_mean_to_pool", reduce_mean_to_pool, 0),
    Pass("reduce_mean_to_flat_pool", reduce_mean_to_flat_pool, 1),
    Pass("reshape_to_flatten", reshape_to_flatten, 0),
    Pass("remove_dead_nodes", remove_dead_nodes, -1),
    Pass("remove_unused_initializers", remove_unused_initializers, 0),
)
