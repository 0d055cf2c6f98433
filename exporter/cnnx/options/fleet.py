"""Options of the commands of `fleet`: how machines come together, and which of them do the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnx.errors import UsageError
from cnnx.options import Options, option
from cnnx.options.bundles import JudgeOptions, SurveyOptions
from cnnx.options.networks import CalibrateOptions

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
    address: str | None = option(
        None,
        "Address of the cluster's head. Default: the cluster that this machine has joined.",
        metavar="HOST:PORT",
    )
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


def read_names(text: str) -> tuple[str, ...]:
    """The names in a text such as "orin-nano,xavier"."""
    return tuple(text.split(","))


class NodeOptions(TokenOptions):
    """Options of commands that give work to nodes."""

    address: str | None = option(
        None,
        "Address of the cluster's head. Default: the cluster that this machine has joined.",
        metavar="HOST:PORT",
    )
    no_ray: str | Path | None = option(
        None,
        "Reach the devices in this hosts.toml over SSH alone, without Ray.",
        metavar="HOSTS",
    )
    limit: float = option(
        60.0, "Minutes that one job may take before it is given to another node.", metavar="MINUTES"
    )


class FleetSurveyOptions(NodeOptions, SurveyOptions):
    """Options of `fleet survey`."""

    on: Sequence[str] = option(
        (), "Devices to measure on. Default: all.", read=read_names, metavar="DEVICE,...", text=""
    )


class ShardOptions(NodeOptions):
    """Options of verbs that cut an image set into shards."""

    shard_images: int = option(1024, "Images of each job, rounded up to whole batches.", min=1, metavar="N")
    threads: int | None = option(
        None, "CPU threads of each run, the same on every node. Default: the cores of this machine.", min=1
    )

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            UsageError: one is below 1.
        """
        for name, value in (("shard-images", self.shard_images), ("threads", self.threads)):
            if value is not None and value < 1:
                raise UsageError(
                    f"invalid --{name} {value}: expected at least 1", hint=f"drop --{name} for the default"
                )


class FleetValidateOptions(ShardOptions, JudgeOptions):
    """Options of `fleet validate`."""

    on: str | None = option(
        None, "Device whose nodes run the bundle. Default: that of all nodes.", metavar="DEVICE"
    )


class FleetCalibrateOptions(ShardOptions, CalibrateOptions):
    """Options of `fleet calibrate`."""

    on: str | None = option(
        None, "Device whose nodes run the images. Default: the nodes with PyTorch.", metavar="DEVICE"
    )
    keep_unequal: bool = option(
        False, "Let exports here reuse the statistics even if these nodes compute differently."
    )
