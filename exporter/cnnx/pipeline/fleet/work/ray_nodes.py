"""Nodes of a Ray cluster. An actor on each node relays messages to a worker process there.

The actor takes the node's device as a custom resource, so nobody else measures there meanwhile. Ray itself
needs the same Python on all nodes; the worker runs in the Python that `CNNX_FLEET_PYTHON` names, which may be
another one, such as JetPack's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnx.errors import Unreachable
from cnnx.pipeline.fleet.work.frames import Frame
from cnnx.pipeline.fleet.work.job import EXPORT
from cnnx.pipeline.fleet.work.line import LineLost, ProcessLine
from cnnx.pipeline.fleet.work.pool import Place

PYTHON = "CNNX_FLEET_PYTHON"
"""Environment variable of a node with the Python that does its jobs."""
_WORKER = "cnnx.pipeline.fleet.work.worker"
# Ray sets these for processes that asked for no CPU and no GPU. The worker may use all of the device.
_OF_RAY = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_NOT_DEVICES = ("CPU", "GPU", "memory", "object_store_memory", EXPORT)


class _Relay:
    """Relays messages between the fleet and a worker on the actor's node."""

    def __init__(self) -> None:
        self._line: ProcessLine | None = None

    async def ask(
        self, header: dict[str, Any], payload: bytes
    ) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
        try:
            if self._line is None:
                python = os.environ.get(PYTHON) or sys.executable
                environment = {key: value for key, value in os.environ.items() if key not in _OF_RAY}
                self._line = await ProcessLine.open([python, "-m", _WORKER], environment=environment)
            async for frame in self._line.ask(Frame(header, payload)):
                yield frame.header, frame.payload
        except LineLost as error:
            self._line = None
            yield {"lost": str(error)}, b""


class RayLine:
    """A line to the worker of a node of the cluster."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def ask(self, frame: Frame) -> AsyncIterator[Frame]:
        """See `Line.ask`."""
        try:
            answers = self._actor.ask.options(num_returns="streaming").remote(frame.header, frame.payload)
            async for reference in answers:
                header, payload = await reference
                if "lost" in header:
                    raise LineLost(header["lost"])
                yield Frame(header, payload)
        except RayError as error:
            raise LineLost(_first_line(error)) from None

    async def close(self) -> None:
        """See `Line.close`: the worker ends with its relay."""
        ray.kill(self._actor)


class RayNodes:
    """The nodes of the cluster that this process is connected to."""

    async def places(self) -> Sequence[Place]:
        """See `Source.places`.

        Raises:
            Unreachable: the head of the cluster cannot be reached.
        """
        try:
            alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        except (RayError, ConnectionError, RuntimeError) as error:
            raise Unreachable(
                f"the head of the cluster cannot be reached: {_first_line(error)}",
                hint="start it again, cnnx fleet join --head, and run the same command again",
            ) from None
        return [place for node in alive for place in _places(node)]


def _places(node: dict[str, Any]) -> list[Place]:
    """Where a node's worker can be reached; nothing for a node that neither measures nor exports."""
    resources = [name for name in node["Resources"] if name not in _NOT_DEVICES and ":" not in name]
    device = min(resources, default="")
    taken = {name: 1 for name in (device, EXPORT) if name and name in node["Resources"]}
    if not taken:
        return []

    async def reach() -> RayLine:
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        relay = ray.remote(_Relay).options(num_cpus=0, resources=taken, scheduling_strategy=where)
        try:
            return RayLine(relay.remote())
        except RayError as error:
            raise LineLost(_first_line(error)) from None

    return [Place(f"{node['NodeManagerAddress']}/{node['NodeID'][:8]}", device, reach)]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
