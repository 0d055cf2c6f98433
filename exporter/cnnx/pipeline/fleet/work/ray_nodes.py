"""Nodes of a Ray cluster, reached through a process that talks to Ray (`ray_driver`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from cnnx.errors import EnvironmentLacks, Unreachable
from cnnx.machine.isolated import python_process
from cnnx.pipeline.fleet.cluster.membership import Membership
from cnnx.pipeline.fleet.cluster.names import split_address
from cnnx.pipeline.fleet.cluster.ray_cluster import environment_of, list_nodes
from cnnx.pipeline.fleet.work.frames import Frame, packed, receive_frame
from cnnx.pipeline.fleet.work.line import LineLost
from cnnx.pipeline.fleet.work.pool import Place

_MODULE = "cnnx.pipeline.fleet.work.ray_driver"
_STARTS_S, _ANSWERS_S = 120.0, 20.0


class RayNodes:
    """The nodes of a cluster.

    Args:
        membership: the cluster, and this machine's node of it.
        token: file of the token.

    Raises:
        UsageError: the address is invalid.
    """

    def __init__(self, membership: Membership, token: Path) -> None:
        split_address(membership.address)
        self._membership, self._token = membership, token
        self._driver: _Driver | None = None
        self._was_connected = False

    async def places(self) -> Sequence[Place]:
        """See `Source.places`.

        Raises:
            EnvironmentLacks: the head refuses the token, or this machine is not a node of the cluster.
            Unreachable: the head of the cluster does not answer.
        """
        try:
            if self._driver is None:
                self._driver = await self._connect()
                self._was_connected = True
            [answer] = await asyncio.wait_for(_all(self._driver.ask(Frame({"do": "places"}))), _ANSWERS_S)
        except (LineLost, EnvironmentLacks, asyncio.TimeoutError) as error:
            if isinstance(error, EnvironmentLacks) and not self._was_connected:
                raise
            await self.close()  # the next call connects again, as to a head that was restarted
            raise Unreachable(
                "the head of the cluster does not answer",
                where=self._membership.address,
                hint="start it again (cnnx fleet join --head), and run the same command again",
            ) from None
        return [_place(self._driver, name, device) for name, device in answer.header["places"]]

    async def _connect(self) -> _Driver:
        """Start a driver, and meanwhile have the nodes listed once, which says sooner why a head refuses."""
        opening = asyncio.ensure_future(_Driver.open(self._membership, self._token))
        listing = asyncio.to_thread(list_nodes, self._membership.address, self._token)
        try:
            await listing
        except EnvironmentLacks:
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, LineLost, EnvironmentLacks):
                await opening
            raise
        return await opening

    async def close(self) -> None:
        """See `Source.close`."""
        if self._driver is not None:
            driver, self._driver = self._driver, None
            await driver.close()


def _place(driver: _Driver, name: str, device: str) -> Place:
    async def reach() -> _RayLine:
        return _RayLine(driver, name)

    return Place(name, device, reach)


class _RayLine:
    """A line to the worker of a node of the cluster."""

    def __init__(self, driver: _Driver, node: str) -> None:
        self._driver, self._node = driver, node

    async def ask(self, frame: Frame) -> AsyncIterator[Frame]:
        """See `Line.ask`."""
        asked = Frame({"do": "ask", "node": self._node, "message": frame.header}, frame.payload)
        async for answer in self._driver.ask(asked):
            message = answer.header["message"]
            if "lost" in message:
                raise LineLost(message["lost"])
            yield Frame(message, answer.payload)

    async def close(self) -> None:
        """See `Line.close`: the worker ends with its relay."""
        with contextlib.suppress(LineLost, asyncio.TimeoutError):
            await asyncio.wait_for(
                _all(self._driver.ask(Frame({"do": "close", "node": self._node}))), _ANSWERS_S
            )


class _Driver:
    """The process that talks to Ray, which many lines share."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._sending = asyncio.Lock()
        self._waiting: dict[int, asyncio.Queue[Frame | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, membership: Membership, token: Path) -> _Driver:
        """Start it.

        Raises:
            EnvironmentLacks: it cannot connect to the cluster.
            LineLost: it ended.
        """
        arguments = [membership.address, *filter(None, [membership.node_ip_address])]
        command, kept = python_process(_MODULE, *arguments)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment_of(kept, token),
            cwd="/",
            start_new_session=True,
        )
        assert process.stdout is not None
        driver = cls(process)
        first = None
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                first = await asyncio.wait_for(receive_frame(process.stdout), _STARTS_S)
        except asyncio.CancelledError:
            process.kill()
            raise
        if first is None or "error" in first.header:
            await driver.close()
            address, reason = membership.address, first.header["error"] if first else "no answer"
            raise EnvironmentLacks(
                f"this machine cannot connect to the cluster: {reason}",
                where=address,
                hint=f"make it a node of the cluster: cnnx fleet join --as NAME --address {address}",
            )
        driver._reading = asyncio.ensure_future(driver._read(process.stdout))
        return driver

    async def ask(self, frame: Frame) -> AsyncIterator[Frame]:
        """Send a message, and yield its answers up to the last.

        Raises:
            LineLost: the process has ended, as it does when the head of the cluster has.
        """
        number = next(self._numbers)
        answers = self._waiting[number] = asyncio.Queue()
        try:
            if self._reading is None or self._reading.done():
                raise LineLost("the connection to the cluster has ended")
            assert self._process.stdin is not None
            async with self._sending:
                with contextlib.suppress(OSError):  # then no answer comes
                    self._process.stdin.write(packed(Frame({**frame.header, "id": number}, frame.payload)))
                    await self._process.stdin.drain()
            while (answer := await answers.get()) is not None:
                yield answer
                if answer.is_last:
                    return
            raise LineLost("the connection to the cluster has ended")
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        """End the process, and with it the relays."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _ANSWERS_S)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """Hand each answer to its question; at the end, tell all that wait."""
        try:
            while (frame := await receive_frame(stream)) is not None:
                if queue := self._waiting.get(frame.header["id"]):
                    queue.put_nowait(frame)
        finally:
            for queue in self._waiting.values():
                queue.put_nowait(None)


async def _all(frames: AsyncIterator[Frame]) -> list[Frame]:
    return [frame async for frame in frames]
