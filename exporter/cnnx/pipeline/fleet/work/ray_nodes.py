"""Nodes of a Ray cluster. An actor on each node relays messages to a worker process there.

The actor takes the node's device as a custom resource, so nobody else measures there meanwhile. Ray itself
needs the same Python on all nodes; the worker runs in the Python that `CNNX_FLEET_PYTHON` names, which may be
another one, such as JetPack's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray._raylet import AuthenticationTokenLoader
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnx.errors import EnvironmentLacks, Unreachable
from cnnx.pipeline.fleet.cluster.membership import Membership
from cnnx.pipeline.fleet.cluster.names import DEVICE_LABEL, split_address
from cnnx.pipeline.fleet.cluster.ray_cluster import WORKER_PYTHON, list_nodes
from cnnx.pipeline.fleet.work.frames import Frame
from cnnx.pipeline.fleet.work.job import EXPORT
from cnnx.pipeline.fleet.work.line import LineLost, ProcessLine
from cnnx.pipeline.fleet.work.pool import Place

_WORKER = "cnnx.pipeline.fleet.work.worker"
# Ray sets these for processes that asked for no CPU and no GPU. The worker may use all of the device.
_OF_RAY = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_ANSWERS_S = 20.0


class _Relay:
    """Relays messages between the fleet and a worker on the actor's node."""

    def __init__(self) -> None:
        self._line: ProcessLine | None = None

    async def ask(
        self, header: dict[str, Any], payload: bytes
    ) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
        try:
            if self._line is None:
                python = os.environ.get(WORKER_PYTHON) or sys.executable
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
            Unreachable: the head of the cluster does not answer.
        """
        try:
            nodes = await asyncio.wait_for(_listed(), _ANSWERS_S)
        except (RayError, ConnectionError, RuntimeError, asyncio.TimeoutError) as error:
            reason = _first_line(error)
            raise Unreachable(
                f"the head of the cluster does not answer{f': {reason}' if str(error) else ''}",
                hint="start it again (cnnx fleet join --head), and run the same command again",
            ) from None
        return [place for node in nodes if node["Alive"] for place in _places(node)]


def _listed() -> asyncio.Future[list[dict[str, Any]]]:
    """What Ray lists. A thread waits for it that nobody waits for: without the head, Ray may never answer."""
    loop = asyncio.get_running_loop()
    listed: asyncio.Future[list[dict[str, Any]]] = loop.create_future()

    def tell(set_to: Callable[[Any], None], value: Any) -> None:
        if not listed.done():
            set_to(value)

    def ask() -> None:
        with contextlib.suppress(RuntimeError):  # nobody listens any more
            try:
                nodes = ray.nodes()
            except Exception as error:
                loop.call_soon_threadsafe(tell, listed.set_exception, error)
            else:
                loop.call_soon_threadsafe(tell, listed.set_result, nodes)

    threading.Thread(target=ask, daemon=True).start()
    return listed


@contextlib.contextmanager
def connected(membership: Membership, token: Path) -> Iterator[RayNodes]:
    """Connect this process, whose environment Ray has read, to a cluster until the end of the block.

    Raises:
        EnvironmentLacks: this machine is not a node of it, or the head refuses the token.
        Unreachable: the head does not answer.
    """
    address = membership.address
    split_address(address)
    list_nodes(address, token)  # in a process of its own: it says why a head refuses
    AuthenticationTokenLoader.instance().reset_cache()  # which has the token of an earlier cluster
    try:
        ray.init(
            address=address,
            _node_ip_address=membership.node_ip_address,
            log_to_driver=False,
            logging_level="error",
        )
    except (RayError, ConnectionError, RuntimeError, AssertionError, ValueError) as error:
        raise EnvironmentLacks(
            f"this machine cannot connect to the cluster: {_first_line(error)}",
            where=address,
            hint=f"make it a node of the cluster: cnnx fleet join --as NAME --address {address}",
        ) from None
    try:
        yield RayNodes()
    finally:
        _disconnect()


def _disconnect() -> None:
    """Leave the cluster. If its head is gone, Ray would wait for it."""
    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(_ANSWERS_S)


def _places(node: dict[str, Any]) -> list[Place]:
    """Where a node's worker can be reached; nothing for a node that neither measures nor exports."""
    device = node["Labels"].get(DEVICE_LABEL, "")
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

    return [Place(f"{device or 'head'}@{node['NodeManagerAddress']}-{node['NodeID'][:6]}", device, reach)]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
