"""The sites of a graph that may carry Q/DQ, which of them are alike, and which act on each other."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from cnnx.graph import edit
from cnnx.graph.edit import ValueType, Wiring
from cnnx.graph.inspect import layers
from cnnx.graph.policy.placement import LayerPlan, quantized_uses

# A site is linked with at most this many of the sites before it, the nearest ones. In a DenseNet, each layer
# reads all layers before it.
_BEFORE = 4
# A shortcut has no MACs. Its Q/DQ act on a sum, which costs about as much as this share of a typical layer.
_SHORTCUT = 0.1


@dataclass(frozen=True, slots=True)
class QdqSite:
    """A layer, or a sum whose shortcut is read, through Q/DQ.

    Attributes:
        name: name of the node.
        shortcut: whether it is a sum.
        multiply_adds: MACs per image; for a shortcut, what its cost compares with.
        alike: a key that is equal for the same node in repeated blocks: operator, attributes, shapes, and the
            operators around it.
    """

    name: str
    shortcut: bool
    multiply_adds: int
    alike: str


@dataclass(frozen=True, slots=True)
class SiteLink:
    """Two sites that act on each other.

    Attributes:
        relation: "feeds" if the second computes on what the first gives, "shares" if both read one tensor.
    """

    one: str
    other: str
    relation: str


def sites_of(
    model: ModelProto, plan: Sequence[LayerPlan]
) -> tuple[tuple[QdqSite, ...], tuple[SiteLink, ...]]:
    """Sites in graph order, and their links.

    Args:
        model: FP32 graph; it is not changed.
        plan: its plan, with Q/DQ wherever they may be.
    """
    wires, types = edit.wiring(model.graph), edit.value_types(model)
    uses = quantized_uses(model, plan)
    reads = {name: tensor for tensor, names in uses.items() for name in names}
    macs = {row.name: row.multiply_adds for row in layers(model)}
    weighted = [macs[name] for name in reads if macs[name]]
    typical = sum(weighted) / len(weighted) if weighted else 0
    nodes = [node for node in model.graph.node if node.name in reads]
    sites = tuple(
        QdqSite(
            node.name,
            shortcut=not macs[node.name],
            multiply_adds=macs[node.name] or round(_SHORTCUT * typical),
            alike=_alike(node, wires, types),
        )
        for node in nodes
    )
    links = dict.fromkeys([*_feeding(nodes, wires, reads), *_sharing(uses)])
    return sites, tuple(links)


def _feeding(nodes: Sequence[NodeProto], wires: Wiring, reads: Mapping[str, str]) -> Iterator[SiteLink]:
    """Links from each site to those that compute on its output, with no site between."""
    for node in nodes:
        seen, near, waiting = set[str](), list[str](), deque(node.input)
        while waiting and len(near) < _BEFORE:
            producer = wires.producers.get(waiting.popleft())
            if producer is None or producer.name in seen:
                continue
            seen.add(producer.name)
            if producer.name in reads:
                near.append(producer.name)
            else:
                waiting.extend(producer.input)
        yield from (SiteLink(before, node.name, "feeds") for before in near)


def _sharing(uses: Mapping[str, Sequence[str]]) -> Iterator[SiteLink]:
    """Links between sites that read one quantized tensor: the second costs no further Quantize."""
    for names in uses.values():
        yield from (SiteLink(one, other, "shares") for one, other in itertools.pairwise(names))


def _alike(node: NodeProto, wires: Wiring, types: Mapping[str, ValueType]) -> str:
    """The node, its shapes, and the operators before and after it."""
    before = [wires.producers[name].op_type for name in node.input if name in wires.producers]
    after = sorted(reader.op_type for name in node.output for reader in wires.consumers.get(name, []))
    attributes = sorted(str(edit.attribute(node, each.name)) + each.name for each in node.attribute)
    shapes = [_shape(name, wires, types) for name in (*node.input, *node.output)]
    return repr((node.op_type, attributes, shapes, before, after))


def _shape(name: str, wires: Wiring, types: Mapping[str, ValueType]) -> object:
    if name in wires.initializers:
        return tuple(wires.initializers[name].dims)
    kind = types.get(name)
    return None if kind is None else kind.shape
