"""Options of the commands of `fleet` that bring machines together."""

from __future__ import annotations

from pathlib import Path

from cnnx.options import Options, option

CLUSTER_PORT = 6379
NODE_PORTS = 17000


class TokenOptions(Options):
    """Options of commands that talk to a cluster."""

    token_file: str | Path | None = option(
        None,
        "File with the cluster's token, mode 600. Default: cnnx/fleet-token in ~/.config.",
        metavar="FILE",
    )


class JoinOptions(TokenOptions):
    """Options of `fleet join`."""

    device: str | None = option(
        None, "Name of this device, such as orin-nano.", flag="--as", metavar="DEVICE"
    )
    head: bool = option(False, "Start the cluster here; creates the token if there is none.")
    address: str | None = option(None, "Head of the cluster.", metavar="HOST:PORT")
    node_ip_address: str | None = option(
        None, "Address at which other nodes reach this one. Default: that of the route to the head."
    )
    port: int = option(CLUSTER_PORT, "With --head: port of the cluster.", min=1024, max=65535)
    node_ports: int = option(
        NODE_PORTS, "First of the 100 ports of this node, for a firewall rule.", min=1024, max=65436
    )
    worker_python: str | Path | None = option(
        None, "Python that measures, if not this one: JetPack's own has TensorRT.", metavar="PYTHON"
    )
    object_store_mib: int = option(256, "Maximum memory for objects in transit, in MiB.", min=80)


class UpOptions(Options):
    """Options of `fleet up`."""

    wheel: str | Path | None = option(None, "Wheel of cnnx to install. Default: made from this cnnx.")
    find_links: str | Path | None = option(
        None, "Folder of wheels to upload and install from, for devices without internet.", metavar="FOLDER"
    )
    wait: float = option(180.0, "Seconds to wait until the devices are in the cluster.", min=1)


class StatusOptions(TokenOptions):
    """Options of `fleet status`."""

    hosts: str | Path | None = option(None, "Hosts file: list the cluster from its head.", metavar="FILE")
    address: str | None = option(None, "Head of the cluster.", metavar="HOST:PORT")


class DownOptions(Options):
    """Options of `fleet down`."""

    keep_head: bool = option(False, "Leave the head running.")
