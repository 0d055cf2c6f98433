"""Connects to the nodes of a fleet: of a Ray cluster, or over SSH alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cnnx.options.fleet import NodeOptions
from cnnx.pipeline.fleet.work.pool import FleetPool, Source
from cnnx.pipeline.progress import Listener


@contextlib.contextmanager
def open_pool(options: NodeOptions, *, listener: Listener) -> Iterator[FleetPool]:
    """The nodes that the options name; they are free for others at the end.

    Raises:
        UsageError: the options contradict each other.
        MissingExtra: Ray is not installed.
        Unreachable: the head of the cluster cannot be reached.
    """
    source: Source
    from cnnx.pipeline.fleet.work.ray_nodes import RayNodes

    source = RayNodes()
    with FleetPool(source, listener=listener, limit_s=60 * options.limit) as pool:
        yield pool
