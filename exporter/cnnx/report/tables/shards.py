"""Tables of a fleet's shards: the nodes that ran images, how far they differ, and lost jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from cnnx.report.table import Block, Column, Figures, Remark, Table, table_of
from cnnx.report.words import grouped

if TYPE_CHECKING:
    from cnnx.agreement.sharding import NodeShare, Sharding

_PACKAGES = ("torch", "onnxruntime", "tensorrt")


class Lost(Protocol):
    """A job that no node could do."""

    @property
    def job(self) -> str:
        """Its name."""
        ...

    @property
    def reason(self) -> str:
        """What went wrong."""
        ...

    @property
    def hint(self) -> str:
        """What to do about it."""
        ...


def sharding_blocks(sharding: Sharding) -> Iterator[Block]:
    """The nodes with the images that each ran, and the largest difference between them."""
    ran = sorted(sharding.differences)
    columns: tuple[Column[NodeShare], ...] = (
        Column("node", lambda node: node.name),
        *(Figures(f"images, {name}", _images(name)) for name in ran),
        Column("CPU", lambda node: node.cpu, drop=1),
        Column("packages", _packages, drop=2),
    )
    title = (
        f"Nodes, in shards of {sharding.shard_images:,} images, batches of {sharding.batch} and "
        f"{sharding.threads} threads"
    )
    yield table_of(title, columns, [sharding.nodes])
    yield _compared(sharding)


def _compared(sharding: Sharding) -> Remark:
    if sharding.is_exact:
        return Remark("every node computed the first batch bit for bit alike", "nodes", "good")
    found = ", ".join(
        f"{name}: {'not finite on some nodes' if value is None else f'{value:.3g}'}"
        for name, value in sorted(sharding.differences.items())
    )
    return Remark(f"the first batch differs between nodes, at most by ({found})", "nodes", "open")


def _images(name: str) -> Callable[[NodeShare], str]:
    return lambda node: grouped(node.images.get(name, 0))


def _packages(node: NodeShare) -> str:
    return ", ".join(f"{name} {node.versions[name]}" for name in _PACKAGES if name in node.versions)


def lost_blocks(lost: Sequence[Lost]) -> Iterator[Table | Remark]:
    """The jobs that were lost, and why there is no result."""
    if not lost:
        return
    columns: tuple[Column[Lost], ...] = (
        Column("job", lambda each: each.job, fixed=True),
        Column("reason", lambda each: each.reason),
        Column("hint", lambda each: each.hint),
    )
    yield table_of("Lost jobs", columns, [lost])
    yield Remark(
        "no result, as these images are missing; the others are kept, and the same command resumes",
        "not decided",
        "open",
    )
