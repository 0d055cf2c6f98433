"""Options of the fleet's verbs: which nodes do the work, and how to reach them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnx.options import Options, option
from cnnx.options.bundles import SurveyOptions


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
