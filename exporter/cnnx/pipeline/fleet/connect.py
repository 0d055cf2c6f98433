"""Connects to the nodes of a fleet: of a Ray cluster, or over SSH alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cnnx.errors import UsageError
from cnnx.options.fleet import NodeOptions
from cnnx.pipeline.fleet.cluster.hosts import read_hosts
from cnnx.pipeline.fleet.cluster.membership import membership_of
from cnnx.pipeline.fleet.cluster.ray_cluster import require_ray
from cnnx.pipeline.fleet.cluster.token import read_token, token_file
from cnnx.pipeline.fleet.work.pool import FleetPool, Source
from cnnx.pipeline.fleet.work.ray_nodes import RayNodes
from cnnx.pipeline.fleet.work.ssh_nodes import SshNodes
from cnnx.pipeline.progress import Listener


@contextlib.contextmanager
def open_pool(options: NodeOptions, *, listener: Listener) -> Iterator[FleetPool]:
    """The nodes that the options name; they are free for others at the end.

    Raises:
        UsageError: the options contradict each other, or this machine is a node of several clusters.
        HostsError: the hosts file cannot be used.
        MissingExtra: Ray is not installed.
        InputRefused: others can read the token.
        EnvironmentLacks: this machine is not a node of the cluster, or there is no token.
        Unreachable: the head of the cluster cannot be reached.
    """
    if options.limit <= 0:
        raise UsageError(
            f"invalid --limit {options.limit:g}: expected more than 0 minutes",
            hint="drop --limit for an hour",
        )
    with FleetPool(_source(options), listener=listener, limit_s=60 * options.limit) as pool:
        yield pool


def _source(options: NodeOptions) -> Source:
    if options.no_ray is not None:
        for name in ("address", "token_file"):
            if getattr(options, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} has no effect with --no-ray", hint=f"drop {flag}")
        return SshNodes(read_hosts(Path(options.no_ray)))
    require_ray()
    membership = membership_of(options.address)
    token = token_file(options.token_file)
    read_token(token)
    return RayNodes(membership, token)
