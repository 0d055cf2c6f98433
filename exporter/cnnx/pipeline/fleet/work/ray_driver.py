"""The process that talks to Ray: `python -m cnnx.pipeline.fleet.work.ray_driver ADDRESS [NODE_IP_ADDRESS]`.

Ray's client ends the process that it is in when the node or the head it is connected to dies. So it has one
of its own. Messages come by standard input: each has an `id`, which its answers repeat, so that many nodes
can be asked at once. An actor on each node relays messages to a worker there. It takes the node's device as a
custom resource, so nobody else measures there meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnx.pipeline.fleet.cluster.names import DEVICE_LABEL, EXPORT
from cnnx.pipeline.fleet.cluster.ray_cluster import WORKER_PYTHON
from cnnx.pipeline.fleet.work.frames import Frame, packed, receive_frame
from cnnx.pipeline.fleet.work.line import LineLost, ProcessLine

_WORKER = "cnnx.pipeline.fleet.work.worker"
# Ray sets these for processes that asked for no CPU and no GPU. The worker may use all of the device.
_OF_RAY = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


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
            yield {"lost": str(error), "last": True}, b""


class _Driver:
    """Answers messages about the nodes of the cluster."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._relays: dict[str, Any] = {}

    async def answer(self, frame: Frame) -> AsyncIterator[Frame]:
        """The answers to a message, without its `id`."""
        if frame.header["do"] == "places":
            nodes = await asyncio.get_running_loop().run_in_executor(None, ray.nodes)
            self._nodes = {_name(node): node for node in nodes if node["Alive"] and _taken(node)}
            places = [[name, _device(node)] for name, node in self._nodes.items()]
            yield Frame({"places": places, "last": True})
        elif frame.header["do"] == "close":
            if relay := self._relays.pop(frame.header["node"], None):
                ray.kill(relay)
            yield Frame({"last": True})
        else:
            async for each in self._relayed(frame):
                yield each

    async def _relayed(self, frame: Frame) -> AsyncIterator[Frame]:
        try:
            relay = self._relay(frame.header["node"])
            stream = relay.ask.options(num_returns="streaming")
            async for reference in stream.remote(frame.header["message"], frame.payload):
                header, payload = await reference
                yield Frame({"message": header, "last": bool(header.get("last"))}, payload)
        except RayError as error:
            self._relays.pop(frame.header["node"], None)
            yield Frame({"message": {"lost": _first_line(error)}, "last": True})

    def _relay(self, name: str) -> Any:
        """The relay on a node, which is started if there is none."""
        if name not in self._relays:
            node = self._nodes[name]
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            kind = ray.remote(_Relay).options(num_cpus=0, resources=_taken(node), scheduling_strategy=where)
            self._relays[name] = kind.remote()
        return self._relays[name]


def _device(node: dict[str, Any]) -> str:
    return str(node["Labels"].get(DEVICE_LABEL, ""))


def _name(node: dict[str, Any]) -> str:
    return f"{_device(node) or 'head'}@{node['NodeManagerAddress']}-{node['NodeID'][:6]}"


def _taken(node: dict[str, Any]) -> dict[str, int]:
    """What a relay takes of a node; nothing if the node neither measures nor exports."""
    return {name: 1 for name in (_device(node), EXPORT) if name and name in node["Resources"]}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


async def _serve(outgoing: int) -> None:
    """Answer messages until standard input ends."""
    loop = asyncio.get_running_loop()
    incoming = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(incoming), sys.stdin.buffer)
    driver, running = _Driver(), set[asyncio.Task[None]]()

    async def work(frame: Frame) -> None:
        async for each in driver.answer(frame):
            _write(outgoing, Frame({**each.header, "id": frame.header["id"]}, each.payload))

    _write(outgoing, Frame({"id": 0, "last": True}))
    while (frame := await receive_frame(incoming)) is not None:
        task = asyncio.ensure_future(work(frame))
        running.add(task)
        task.add_done_callback(running.discard)
    os._exit(0)  # relays end with this process; a thread may wait for a head that is gone


def _write(outgoing: int, frame: Frame) -> None:
    data = memoryview(packed(frame))
    while data:
        data = data[os.write(outgoing, data) :]


def main(arguments: Sequence[str]) -> None:
    """Connect to the cluster, and answer messages; the first says that the connection stands."""
    outgoing = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no message
    try:
        ray.init(
            address=arguments[0],
            _node_ip_address=arguments[1] if len(arguments) > 1 else None,
            log_to_driver=False,
            logging_level="error",
        )
    except (RayError, ConnectionError, RuntimeError, AssertionError, ValueError) as error:
        _write(outgoing, Frame({"id": 0, "error": _first_line(error), "last": True}))
        os._exit(1)
    asyncio.run(_serve(outgoing))


if __name__ == "__main__":
    main(sys.argv[1:])
