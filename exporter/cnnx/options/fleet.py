"""Options of the fleet's verbs: which nodes do the work, and how to reach them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnx.errors import UsageError
from cnnx.options import Options, option
from cnnx.options.bundles import JudgeOptions, SurveyOptions
from cnnx.options.networks import CalibrateOptions


def read_names(text: str) -> tuple[str, ...]:
    """The names in a text such as "orin-nano,xavier"."""
    return tuple(text.split(","))


class NodeOptions(Options):
    """Options of every verb that gives work to nodes."""

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
