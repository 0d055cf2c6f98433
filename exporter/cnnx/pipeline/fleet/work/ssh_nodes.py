"""Nodes that SSH reaches, without Ray: a worker on each, whose input and output are those of `ssh`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cnnx.pipeline.fleet.cluster.hosts import Head, Hosts, Machine
from cnnx.pipeline.fleet.cluster.placed import Placed
from cnnx.pipeline.fleet.work.line import ProcessLine
from cnnx.pipeline.fleet.work.pool import Place

WORKER = "cnnx.pipeline.fleet.work.worker"
_RUN = f"""
cd "$1" || exit 1
exec "$2" -m {WORKER} --alone
"""


class SshNodes:
    """The devices of a hosts file, and its head."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    async def places(self) -> Sequence[Place]:
        """See `Source.places`. Whether a device is up shows when it is reached."""
        head = self._hosts.head
        devices = [_place(device.name, device.name, device) for device in self._hosts.device]
        return [_place(head.name or "head", head.name or "", head), *devices]

    async def close(self) -> None:
        """See `Source.close`: each line ends its own process."""


def _place(name: str, device: str, machine: Machine) -> Place:
    async def reach() -> ProcessLine:
        if isinstance(machine, Head) and not machine.ssh:
            return await ProcessLine.open([sys.executable, "-m", WORKER, "--alone"])
        placed = Placed.on(machine)
        return await ProcessLine.open(placed.shell.command(_RUN, [placed.folder, placed.measures]))

    return Place(name, device, reach)
