"""Chooses the output to judge a network by, and puts its logits first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.edit import ValueType, Wiring

# What changes neither the values nor their order.
_PASSED = frozenset({"Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_NORMALIZING = frozenset({"Softmax", "Sigmoid"})
_CLASS_IDS = frozenset({"ArgMax", "TopK"})
# How exporters and authors name logits, and what they name so that is not.
_LIKELY = re.compile(r"logit|prob|softmax|score|class|pred|output", re.IGNORECASE)
_UNLIKELY = re.compile(r"aux|embed|feature|hidden|pool", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An output that could hold logits: its name, number of classes, and the nodes that it depends on."""

    name: str
    classes: int
    depends_on: frozenset[str]

    def rank(self) -> tuple[bool, bool, int]:
        """A sort key, the best last: named like logits, not named like something else, and deepest."""
        return not _UNLIKELY.search(self.name), bool(_LIKELY.search(self.name)), len(self.depends_on)


def logits_first(model: ModelProto, *, wanted: str = "", classes: int | None = None) -> tuple[int, list[str]]:
    """Put the logits first among the outputs, in place; add them as an output if the graph normalizes them.

    A Softmax or Sigmoid at the end saturates in FP16 and hides by how far two networks differ, so that its
    input is judged. Outputs of shape (N, classes, 1, 1) are flattened.

    Args:
        model: a graph with known shapes.
        wanted: name of the output to judge by; "": chosen.
        classes: number of classes, if known.

    Returns:
        the number of classes, and notes for the user.

    Raises:
        GraphError: no output holds logits, or the wanted one does not.
    """
    types, graph = edit.value_types(model), edit.wiring(model.graph)
    chosen, notes = _choose(model, types, graph, wanted, classes)
    source = _before_normalizing(chosen.name, graph)
    logits = source
    if types[source].rank != 2:
        logits = edit.Names(model.graph).fresh(f"{source}.logits")
        flatten = helper.make_node("Flatten", [source], [logits], name=logits, axis=1)
        model.graph.node.append(flatten)
    others = [value for value in model.graph.output if value.name != logits]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(logits, edit.FLOAT, [None, None]))
    model.graph.output.extend(others)
    if source != chosen.name:
        kind = _last(graph.producers[chosen.name], graph).op_type
        notes.append(
            f"the output {chosen.name} ends in {kind}; its input is the first output, {logits}, and is judged"
        )
    return chosen.classes, notes


def _choose(
    model: ModelProto, types: Mapping[str, ValueType], graph: Wiring, wanted: str, classes: int | None
) -> tuple[_Candidate, list[str]]:
    names = [value.name for value in model.graph.output]
    if wanted and wanted not in names:
        raise GraphError(
            f"the graph has no output {wanted!r}; outputs: {', '.join(names) or 'none'}",
            where=f"graph {model.graph.name}",
            hint=f"give one of them with --logits, such as --logits {names[0]}" if names else None,
        )
    candidates = [
        _Candidate(name, found, _ancestors(name, graph))
        for name in names
        if (found := _classes(types.get(name), graph.producers.get(name)))
    ]
    fitting = [one for one in candidates if one.name == wanted or not wanted]
    fitting = [one for one in fitting if classes in (None, one.classes)]
    if not fitting:
        raise _no_logits(model, types, graph, wanted, classes)
    best = max(fitting, key=_Candidate.rank)
    if wanted or len(names) == 1:
        return best, []
    others = ", ".join(f"{name} {_shape(types.get(name))}" for name in names if name != best.name)
    note = f"judged by the output {best.name} {_shape(types[best.name])}; the others are {others}"
    return best, [f"{note} (--logits NAME chooses)" if len(candidates) > 1 else note]


def _classes(kind: ValueType | None, producer: NodeProto | None) -> int | None:
    """Number of classes of an output of logits: (N, classes), or with further axes of length 1."""
    if kind is None or not kind.is_float or kind.shape is None or len(kind.shape) < 2:
        return None
    _, classes, *rest = kind.shape
    if any(length != 1 for length in rest) or not isinstance(classes, int) or classes < 2:
        return None
    return classes if producer is not None else None


def _shape(kind: ValueType | None) -> str:
    shape = kind.shape if kind else None
    if shape is None:
        return "of unknown shape"
    return f"({', '.join('?' if length is None else str(length) for length in shape)})"


def _before_normalizing(output: str, graph: Wiring) -> str:
    """The tensor that a final Softmax or Sigmoid reads; the output itself without one."""
    last = _last(graph.producers[output], graph)
    return str(last.input[0]) if last.op_type in _NORMALIZING else output


def _last(node: NodeProto, graph: Wiring) -> NodeProto:
    """The last node before an output that computes."""
    while node.op_type in _PASSED and node.input[0] in graph.producers:
        node = graph.producers[node.input[0]]
    return node


def _ancestors(name: str, graph: Wiring) -> frozenset[str]:
    """First outputs of all nodes that a tensor depends on."""
    found: set[str] = set()
    pending = [name]
    while pending:
        node = graph.producers.get(pending.pop())
        if node is not None and node.output[0] not in found:
            found.add(node.output[0])
            pending.extend(node.input)
    return frozenset(found)


def _no_logits(
    model: ModelProto, types: Mapping[str, ValueType], graph: Wiring, wanted: str, classes: int | None
) -> GraphError:
    listed = ", ".join(f"{value.name} {_shape(types.get(value.name))}" for value in model.graph.output)
    expected = "(N, classes)" if classes is None else f"(N, {classes})"
    what = f"no float output has the shape {expected}; outputs: {listed or 'none'}"
    hint = "export a classifier whose output is logits of shape (N, classes)"
    if wanted:
        what = f"the output {wanted} {_shape(types.get(wanted))} is not logits of shape {expected}"
    ends = {
        _last(graph.producers[value.name], graph).op_type
        for value in model.graph.output
        if value.name in graph.producers
    }
    if ends & _CLASS_IDS:
        hint = "the network returns class numbers; export it so that it returns logits, before ArgMax or TopK"
    elif any(_spatial(types.get(value.name)) for value in model.graph.output):
        hint = (
            "the network returns a feature map, as a backbone or a segmentation network does; "
            "export the classifier with its pooling and last layer"
        )
    elif any(not _fixed(types.get(value.name)) for value in model.graph.output):
        hint = "export the network again with logits of a fixed shape (N, classes)"
    return GraphError(what, where=f"graph {model.graph.name}", hint=hint)


def _spatial(kind: ValueType | None) -> bool:
    shape = kind.shape if kind else None
    return shape is not None and len(shape) == 4 and shape[2:] != (1, 1)


def _fixed(kind: ValueType | None) -> bool:
    return kind is not None and kind.shape is not None and all(isinstance(n, int) for n in kind.shape[1:])
