"""The hosts file: the head of a cluster, its devices, and how SSH reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from cnnx.errors import HostsError
from cnnx.limits import TEXT_BYTES
from cnnx.options.fleet import CLUSTER_PORT, NODE_PORTS
from cnnx.pipeline.fleet.cluster.names import (
    Address,
    DeviceName,
    NodePorts,
    Port,
    RemotePath,
    User,
    is_ip,
    joined,
)
from cnnx.schema import from_plain
from cnnx.store.reading import read_text
from cnnx.store.toml import parse_toml

LocalFile = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*$", description="the path of a file, or empty")]
ObjectStore = Annotated[int, Meta(ge=80, description="80 MiB or more")]
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that SSH reaches.

    Attributes:
        address: IP address or name for SSH; also for the cluster, unless `node_address` is given.
        user: user there; empty: as SSH decides.
        port: port of its SSH server.
        identity: private key for it; empty: as SSH decides.
        ssh_config: configuration of SSH for it, instead of the user's; empty: the user's.
        python: Python for cnnx and Ray there; all nodes need the same minor version.
        worker_python: Python that measures, such as JetPack's own with TensorRT; empty: `python`.
        folder: folder of cnnx there, absolute or in the user's home folder.
        install: whether to make environments and install cnnx; false: `python` has it.
        node_address: IP address for the cluster, if it differs from `address`.
        node_ports: first of the 100 ports of its node.
        object_store_mib: limit of its object store, in MiB.
    """

    address: Address
    user: User = ""
    port: Port = 22
    identity: LocalFile = ""
    ssh_config: LocalFile = ""
    python: RemotePath = "python3"
    worker_python: RemotePath | None = None
    folder: RemotePath = "cnnx-fleet"
    install: bool = True
    node_address: Address | None = None
    node_ports: NodePorts = NODE_PORTS
    object_store_mib: ObjectStore = 256

    @property
    def node_ip_address(self) -> str | None:
        """IP address of its node; None: Ray finds it by the route to the head."""
        return self.node_address or (self.address if is_ip(self.address) else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Machine):
    """The table `[[device]]`: a device that measures.

    Attributes:
        name: its name in the cluster.
    """

    name: DeviceName


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Machine):
    """The table `[head]`: the machine that the nodes join.

    Attributes:
        name: its name, if it also measures.
        ssh: whether SSH reaches it; false: it is this machine, with this Python.
        cluster_port: port of the cluster.
        token_file: file of the token on this machine; empty: see `cnnx fleet join`.
    """

    name: DeviceName | None = None
    ssh: bool = False
    cluster_port: Annotated[int, Meta(ge=1024, le=65535, description="a port in 1024..65535")] = CLUSTER_PORT
    token_file: LocalFile = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """A hosts file.

    Attributes:
        head: the machine that the nodes join.
        device: the devices.
    """

    head: Head
    device: tuple[Device, ...] = ()

    @property
    def cluster(self) -> str:
        """HOST:PORT of the head, for the nodes."""
        return joined(self.head.node_address or self.head.address, self.head.cluster_port)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all devices, and of the head if it is one."""
        return (*([self.head.name] if self.head.name else []), *(each.name for each in self.device))


def read_hosts(file: Path) -> Hosts:
    """Read a hosts file.

    Raises:
        HostsError: it cannot be read, a key is unknown, or a value cannot be used.
    """
    try:
        data = parse_toml(read_text(file, most=TEXT_BYTES))
    except OSError as error:
        raise HostsError(
            f"the hosts file cannot be read: {error.strerror}", where=file, hint="see docs/fleet.md for one"
        ) from None
    except ValueError as error:
        raise HostsError(f"invalid TOML: {error}", where=file, hint="see docs/fleet.md") from None
    hosts = from_plain(Hosts, data, where=file, error=HostsError)
    for what, hint in _faults(hosts):
        raise HostsError(what, where=file, hint=hint)
    return hosts


def _faults(hosts: Hosts) -> Iterator[tuple[str, str]]:
    """What is wrong between values, with hints."""
    for name in hosts.names:
        if hosts.names.count(name) > 1:
            yield f"two devices have the name {name!r}", "give each a name of its own, such as orin-nano-2"
    for label, machine in [("head", hosts.head), *((each.name, each) for each in hosts.device)]:
        if (machine.node_address or machine.address) in _LOOPBACK:
            yield (
                f"{label}: Ray replaces {machine.address} by the machine's outward address",
                "set node_address; for nodes on this machine alone, to 127.0.0.2 and so on",
            )
        if machine.node_address and not is_ip(machine.node_address):
            yield f"{label}: node_address is not an IP address", "give the address on your private network"
        if not machine.install and machine.worker_python and not machine.worker_python.startswith("/"):
            yield f"{label}: worker_python is not absolute", "give it as command -v prints it"
    if hosts.head.node_ip_address is None:
        yield "head: its address is a name, not an IP address", "set node_address, which the nodes reach"
    if 0 <= hosts.head.cluster_port - hosts.head.node_ports < 100:
        yield "head: cluster_port is among its node_ports", "choose another one"
