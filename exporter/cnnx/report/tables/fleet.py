"""Tables of a fleet: nodes of a cluster, and what was done on each host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cnnx.report.table import Block, Cell, Column, Figures, Remark, Tone, table_of

if TYPE_CHECKING:
    from cnnx.pipeline.fleet.cluster.outcomes import HostOutcome
    from cnnx.pipeline.fleet.cluster.status import NodeStatus

_TONES: Mapping[str, Tone] = {
    "joined": "good", "already up": "good", "stopped": "good", "not running": "open", "failed": "bad",
}  # fmt: skip


def host_blocks(title: str, hosts: Sequence[HostOutcome]) -> Iterator[Block]:
    """What was done on each host, and why and how to fix it where it failed."""
    columns: tuple[Column[HostOutcome], ...] = (
        Column("host", lambda host: host.name, fixed=True),
        Column("address", lambda host: host.address, drop=1),
        Column("outcome", lambda host: Cell(host.outcome, _TONES[host.outcome]), fixed=True),
        Column("failed step", lambda host: host.step, known=True),
        Figures("seconds", lambda host: f"{host.seconds:.1f}", drop=2),
    )
    remarks = [Remark(host.reason, host.name, "bad", host.hint) for host in hosts if host.outcome == "failed"]
    yield table_of(title, columns, [hosts], remarks=remarks)


def node_blocks(address: str, nodes: Sequence[NodeStatus], absent: Sequence[str]) -> Iterator[Block]:
    """`cnnx fleet status`: one row per node."""
    columns: tuple[Column[NodeStatus], ...] = (
        Column("device", lambda node: node.device or "(head)", fixed=True),
        Column("address", lambda node: node.address),
        Column("alive", lambda node: Cell("yes", "good") if node.alive else Cell("no", "bad"), fixed=True),
        Figures("free slots", lambda node: f"{node.free:g} of {node.slots:g}" if node.slots else "-"),
        Column("exports", lambda node: "yes" if node.exports else "no", drop=3),
        Column("machine", lambda node: node.machine, known=True, drop=2),
        Column("Python", _python, known=True, drop=4),
        Column("cnnx", lambda node: node.cnnx, known=True, drop=5),
        Column("TensorRT", lambda node: node.tensorrt, known=True),
        Column("ONNX Runtime", lambda node: node.onnxruntime, known=True, drop=1),
        Column("PyTorch", lambda node: node.pytorch, known=True, drop=1),
        Column("node", lambda node: node.node[:8], fixed=True, drop=6),
    )
    yield table_of(f"Cluster {address}", columns, [nodes])
    for name in absent:
        yield Remark(
            f"{name} is not in the cluster", "absent", "bad", "run cnnx fleet up with the hosts file"
        )


def _python(node: NodeStatus) -> str:
    """Ray's Python, and the one that measures where it differs."""
    differs = node.worker_python and node.worker_python != node.python
    return f"{node.python}, measures with {node.worker_python}" if differs else node.python
