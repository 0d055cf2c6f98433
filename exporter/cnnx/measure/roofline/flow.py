"""How data flows through the layers of an engine: what a conversion lies between, and in which types."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cnnx.measure.roofline.limits import LayerLimit
from cnnx.measure.roofline.work import Network
from cnnx.runtimes.kernels import FUSED, Kernel, Tensor
from cnnx.runtimes.layer_times import LayerKind

_SILENT = {"noop", "reformat"}
# The operator in a node's name: "Add_36", "/layer1/layer1.0/Add", "conv4_block1_add/add", "layer1.0.add".
_OPERATOR = re.compile(r"(?:^|[/._])([A-Za-z]+)(?:_\d+)?$")
_SAME = {
    "add": "Add",
    "sum": "Add",
    "maxpool": "MaxPool",
    "averagepool": "AveragePool",
    "globalaveragepool": "AveragePool",
    "avgpool": "AveragePool",
    "mean": "AveragePool",
    "reducemean": "AveragePool",
    "concat": "Concat",
    "softmax": "Softmax",
    "layernormalization": "LayerNormalization",
    "lrn": "LRN",
}
_CROWDED = 0.8  # share of the layers in one block, above which blocks are named one level deeper


@dataclass(frozen=True, slots=True)
class Part:
    """A layer of an engine against the roofline, with what the builder reported of it.

    Attributes:
        limit: its time and limits.
        kernel: what the builder reported; None if nothing.
        nodes: nodes of the graph whose multiplications it does.
        operators: the graph's operators in it; "Add" is also Sum, "AveragePool" also a mean.
    """

    limit: LayerLimit
    kernel: Kernel | None = None
    nodes: tuple[str, ...] = ()
    operators: frozenset[str] = frozenset()

    @property
    def converts(self) -> bool:
        """Whether it only converts or moves data."""
        return self.limit.kind != "compute"

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """Its input tensors, if they are reported."""
        return self.kernel.reads if self.kernel else ()

    @property
    def writes(self) -> tuple[Tensor, ...]:
        """Its output tensors, if they are reported."""
        return self.kernel.writes if self.kernel else ()

    @property
    def name(self) -> str:
        """The node whose multiplications it does, else the first part of the runtime's name for it."""
        return self.nodes[0] if self.nodes else self.limit.name.partition(FUSED)[0].removesuffix(".weight")


@dataclass(frozen=True, slots=True)
class Conversion:
    """A layer that converts data, and what it is converted between.

    Attributes:
        part: the conversion.
        before: the layer that computed the data; None for the network's input.
        after: the first layer that computes with the data; None for the network's output.
        source: type before all conversions in between; empty if unknown.
        target: type after them.
        beside: other layers that compute with the data before its conversion.
    """

    part: Part
    before: Part | None
    after: Part | None
    source: str
    target: str
    beside: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """The layers of an engine in order, and the layers that write and read each tensor."""

    parts: tuple[Part, ...]
    writers: Mapping[str, Part]
    readers: Mapping[str, Sequence[Part]]

    def conversion(self, part: Part) -> Conversion | None:
        """What a conversion lies between; None if its tensors are unknown."""
        if not part.reads or not part.writes:
            return None
        first, before = self._follow(part, back=True)
        last, after = self._follow(part, back=False)
        source, target = next(iter(first.reads), None), next(iter(last.writes), None)
        beside = [each for each in self.readers.get(source.name if source else "", ()) if not each.converts]
        return Conversion(
            part,
            before,
            after,
            source.type if source else "",
            target.type if target else "",
            tuple(beside),
        )

    def _follow(self, part: Part, *, back: bool) -> tuple[Part, Part | None]:
        """The last conversion in one direction, and the layer beyond it."""
        for _ in range(len(self.writers) + 1):
            tensors = part.reads if back else part.writes
            name = tensors[0].name if tensors else ""
            beyond = self.writers.get(name) if back else next(iter(self.readers.get(name, ())), None)
            if beyond is None or not beyond.converts:
                return part, beyond
            part = beyond
        return part, None  # tensors that form a circle, in a file that is wrong


def flow_of(
    limits: Sequence[LayerLimit],
    kernels: Sequence[Kernel],
    network: Network,
    nodes: Mapping[str, tuple[str, ...]],
) -> Flow:
    """Connect profiled layers by the tensors that the builder reported.

    Args:
        limits: profiled layers in order.
        kernels: what the builder reported.
        network: the graph.
        nodes: kernel -> nodes whose multiplications it does.
    """
    known = {kernel.name: kernel for kernel in kernels}
    spelled = {name.replace(".", "_"): layer.op for name, layer in network.layers.items()}

    def part(limit: LayerLimit) -> Part:
        kernel = known.get(limit.name)
        names = kernel.layers if kernel else ()
        operators = frozenset(_operator(name, spelled) for name in names) - {""}
        return Part(limit, kernel, nodes.get(limit.name, ()), operators)

    profiled = tuple(part(limit) for limit in limits)
    timed = {limit.name for limit in limits}
    # Layers without a time connect others, too.
    others = [part(LayerLimit(name, _silent_kind(known[name]), 0.0)) for name in known if name not in timed]
    every = (*profiled, *others)
    writers = {tensor.name: each for each in every for tensor in each.writes}
    readers: dict[str, list[Part]] = {}
    for each in every:
        for tensor in each.reads:
            readers.setdefault(tensor.name, []).append(each)
    return Flow(profiled, writers, readers)


def kind_of(kernel: Kernel | None, by_name: LayerKind, macs: int | None) -> LayerKind:
    """Kind of a layer: by the types that it reads and writes if they are reported, else by its name."""
    if kernel is None or macs:
        return "compute" if macs else by_name
    kind = kernel.kind.lower()
    if kind == "shuffle":
        return "reformat"
    if kind not in _SILENT and by_name == "compute":
        return "compute"
    types = {tensors[0].type for tensors in (kernel.reads, kernel.writes) if tensors} - {""}
    if not types:
        return "reformat" if by_name == "compute" else by_name
    if len(types) == 1:
        return "reformat"
    return "quantize" if "int8" in types else "cast"


def blocks_of(parts: Iterable[Part], among: Iterable[Part]) -> list[str]:
    """Blocks of the network that layers belong to, in order: the first part of their nodes' names.

    If nearly all layers are in one block, such as "features", the names are one level longer.
    """
    paths = [path for part in among if (path := _path(part))]
    first = Counter(path[0] for path in paths).most_common(1)
    deep = bool(first) and first[0][1] > _CROWDED * len(paths)
    return list(dict.fromkeys(".".join(path[: 2 if deep else 1]) for part in parts if (path := _path(part))))


def _path(part: Part) -> tuple[str, ...]:
    """Components of the longest path among a layer's nodes, without the node itself."""
    names = (*part.nodes, *(part.kernel.layers if part.kernel else ()))
    paths = [tuple(filter(None, re.split(r"[./]", name)))[:-1] for name in names]
    return max(paths, key=len, default=())


def _operator(name: str, spelled: Mapping[str, str]) -> str:
    op = spelled.get(name.replace(".", "_"))
    if op is None:
        found = _OPERATOR.search(name)
        return _SAME.get(found[1].lower(), "") if found else ""
    return _SAME.get(op.lower(), op)


def _silent_kind(kernel: Kernel) -> LayerKind:
    return "reformat" if kernel.kind.lower() in _SILENT else "compute"
