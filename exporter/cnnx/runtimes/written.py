"""Tensors that the kernels of an engine write: under which name, for which nodes, and how they lie in memory.

A tensor between kernels has an internal name, such as "__myln_k_arg__bb1_3_myl0"; what it holds follows from
the nodes of the kernel that writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cnnx.runtimes.kernels import Kernel
from cnnx.runtimes.layout import Layout


@dataclass(frozen=True, slots=True)
class Written:
    """A tensor that a kernel writes.

    Attributes:
        name: the engine's name for it.
        nodes: ONNX nodes of that kernel.
        layout: how it lies in memory; None if that is not reported.
        begun: those of the nodes that a later kernel names, too, so that the tensor is not their result.
    """

    name: str
    nodes: tuple[str, ...]
    layout: Layout | None
    begun: frozenset[str] = frozenset()


def written_by(kernels: Sequence[Kernel], names: Collection[str]) -> tuple[Written, ...]:
    """The tensors that kernels write, in execution order.

    Args:
        kernels: all of an engine, in execution order; see `cnnx.runtimes.evidence.kernels_in`.
        names: names of the graph's nodes. TensorRT 10 may have replaced their dots.
    """
    spelled = Counter(map(_plain, names))
    known = {_plain(name): name for name in names if spelled[_plain(name)] == 1}
    found: list[Written] = []
    later: frozenset[str] = frozenset()
    for kernel in reversed(kernels):
        nodes = tuple(name if name in names else known.get(_plain(name), name) for name in kernel.layers)
        begun = later.intersection(nodes)
        found.extend(Written(each.name, nodes, each.layout, begun) for each in reversed(kernel.writes))
        later = later.union(nodes)
    return tuple(reversed(found))


def layouts_of(tensors: Collection[Written]) -> Mapping[str, Layout]:
    """Name -> layout, of the tensors whose layout is known."""
    return {each.name: each.layout for each in tensors if each.layout is not None}


def _plain(name: str) -> str:
    return name.replace(".", "_")
