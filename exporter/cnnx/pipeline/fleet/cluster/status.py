"""`fleet status`: the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.options import takes
from cnnx.options.fleet import StatusOptions
from cnnx.pipeline.fleet.cluster.hosts import Hosts, read_hosts
from cnnx.pipeline.fleet.cluster.membership import membership_of
from cnnx.pipeline.fleet.cluster.names import DEVICE_LABEL, EXPORT, split_address
from cnnx.pipeline.fleet.cluster.placed import Placed
from cnnx.pipeline.fleet.cluster.ray_cluster import ListedNode, list_nodes
from cnnx.pipeline.fleet.cluster.token import read_token, token_file
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.report.tables.fleet import node_blocks
from cnnx.schema import from_plain, read_json

_LISTING_S = 120.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node of a cluster. A version is empty if it is not known.

    Attributes:
        device: name of the device; null: a head without a slot.
        node: Ray's identifier.
        address: its IP address in the cluster.
        host_name: name of its machine.
        alive: whether it answers its head.
        slots: its slots: 1, or 0 without a device.
        free: slots that nothing uses now.
        exports: whether its Python that measures has PyTorch, and can export and calibrate.
        machine: architecture, such as aarch64.
        python: version of Ray's Python.
        worker_python: version of the Python that measures.
        cnnx: version of cnnx.
        tensorrt: version of TensorRT.
        onnxruntime: version of ONNX Runtime.
        pytorch: version of PyTorch.
    """

    device: str | None
    node: str
    address: str
    host_name: str
    alive: bool
    slots: float
    free: float
    exports: bool
    machine: str
    python: str
    worker_python: str
    cnnx: str
    tensorrt: str
    onnxruntime: str
    pytorch: str


@dataclass(frozen=True, slots=True, repr=False)
class FleetStatus(Result):
    """The nodes of a cluster.

    Attributes:
        address: HOST:PORT of the head.
        nodes: nodes that are alive, and the last of each device that is not; by device.
        absent: devices of the hosts file that are not alive in the cluster.
    """

    address: str
    nodes: tuple[NodeStatus, ...]
    absent: tuple[str, ...] = ()

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        return node_blocks(self.address, self.nodes, self.absent)


@takes(StatusOptions)
def fleet_status(options: StatusOptions) -> FleetStatus:
    """List the nodes of a cluster.

    Args:
        options: options as an object; each can also be given by keyword.

    Raises:
        UsageError: an address and a hosts file are given; or neither, and this machine is not a node of one
            cluster.
        HostsError: the hosts file cannot be used.
        MissingExtra: an address is given, and Ray is not installed here.
        Unreachable: the head does not answer.
        EnvironmentLacks: there is no token, or the head refuses it.

    Examples:
        >>> cnnx.fleet_status(address="10.8.0.1")
        Traceback (most recent call last):
        ...
        cnnx.errors.UsageError: invalid --address '10.8.0.1': expected HOST:PORT
          hint:  give the head's, such as 10.8.0.1:6379
    """
    if options.hosts is not None:
        if options.address is not None:
            raise UsageError("--address and --hosts exclude each other", hint="drop one of them")
        if options.token_file is not None:
            raise UsageError(
                "--token-file has no effect with --hosts", hint="set token_file in the hosts file"
            )
        return status_of(read_hosts(Path(options.hosts)))
    address, token = membership_of(options.address).address, token_file(options.token_file)
    listed = _known(address, token)
    return FleetStatus(address, _current(map(_status, listed)))


def status_of(hosts: Hosts) -> FleetStatus:
    """The nodes of the cluster of a hosts file, as its head lists them; this machine needs no Ray.

    Raises:
        CnnxError: see `fleet_status`.
    """
    head = Placed.head(hosts)
    words = ["fleet", "status", "--address", hosts.cluster, "--token-file", head.token, "--json"]
    text = head.cnnx(words, seconds=_LISTING_S)
    data = read_json(text, where=head.shell.name, error=EnvironmentLacks)
    nodes = from_plain(
        tuple[NodeStatus, ...], data["result"]["nodes"], where=head.shell.name, error=EnvironmentLacks
    )
    alive = {node.device for node in nodes if node.alive}
    return FleetStatus(hosts.cluster, nodes, tuple(name for name in hosts.names if name not in alive))


def _known(address: str, token: Path) -> tuple[ListedNode, ...]:
    split_address(address)
    read_token(token)
    return list_nodes(address, token)


def _status(node: ListedNode) -> NodeStatus:
    device = node.labels.get(DEVICE_LABEL)

    def label(name: str) -> str:
        # A label cannot have a plus sign, as in 2.13.0+cpu, and a version cannot have an underscore.
        return node.labels.get(name, "").replace("_", "+")

    return NodeStatus(
        device=device,
        node=node.node,
        address=node.address,
        host_name=node.host_name,
        alive=node.alive,
        slots=node.total.get(device or "", 0.0),
        free=node.free.get(device or "", 0.0),
        exports=EXPORT in node.total,
        machine=label("cnnx.machine"),
        python=label("cnnx.python"),
        worker_python=label("cnnx.worker-python"),
        cnnx=label("cnnx.version"),
        tensorrt=label("cnnx.tensorrt"),
        onnxruntime=label("cnnx.onnxruntime"),
        pytorch=label("cnnx.pytorch"),
    )


def _current(nodes: Iterable[NodeStatus]) -> tuple[NodeStatus, ...]:
    """Without the earlier nodes of a device that has joined again; Ray lists these, too."""
    kept: dict[tuple[str | None, str], NodeStatus] = {}
    alive = []
    for node in nodes:
        if node.alive:
            alive.append(node)
        else:
            kept[node.device, node.address] = node
    living = {(node.device, node.address) for node in alive}
    gone = [node for key, node in kept.items() if key not in living]
    return tuple(sorted([*alive, *gone], key=lambda node: (node.device or "", node.address)))
