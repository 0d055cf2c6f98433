"""A fleet of processes on this machine: real workers behind pipes, without Ray and SSH."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cnnx.pipeline.fleet.work.line import ProcessLine
from cnnx.pipeline.fleet.work.pool import Place

WORKER = "cnnx.pipeline.fleet.work.worker"


class LocalNodes:
    """Nodes by name with their devices; all use the cache of the tests."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self.devices = dict(nodes)
        self.lines: dict[str, ProcessLine] = {}

    async def places(self) -> Sequence[Place]:
        """The nodes that have not been taken away."""
        return [self._place(name) for name in self.devices]

    async def close(self) -> None:
        pass

    def _place(self, name: str) -> Place:
        async def reach() -> ProcessLine:
            self.lines[name] = await ProcessLine.open([sys.executable, "-m", WORKER])
            return self.lines[name]

        return Place(name, self.devices[name], reach)
