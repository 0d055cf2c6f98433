"""Lines to workers: what carries messages to a node and back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from cnnx.pipeline.fleet.work.frames import Frame, packed, receive_frame

_KEPT_BYTES = 4000
_GRACE_S = 10.0


class LineLost(Exception):
    """A node can no longer be reached, or its worker died; the text says which, and how it ended."""


class Line(Protocol):
    """Carries one question at a time to a worker, and its answers back."""

    def ask(self, frame: Frame) -> AsyncIterator[Frame]:
        """Send a message, and yield what is answered, up to the last message.

        Raises:
            LineLost: the worker cannot be reached any more.
        """
        ...

    async def close(self) -> None:
        """End the worker, with whatever it does."""
        ...


class ProcessLine:
    """A line to a process, which is a worker or reaches one, as `ssh` does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = b""
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def open(
        cls, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> ProcessLine:
        """Start a process.

        Raises:
            LineLost: it cannot be started.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
            )
        except OSError as error:
            raise LineLost(f"{command[0]} cannot be started: {error.strerror or error}") from None
        return cls(process)

    async def ask(self, frame: Frame) -> AsyncIterator[Frame]:
        """See `Line.ask`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # what it wrote before it ended says why
            self._process.stdin.write(packed(frame))
            await self._process.stdin.drain()
        while True:
            found = await receive_frame(self._process.stdout)
            if found is None:
                raise await self._lost()
            yield found
            if found.is_last:
                return

    async def close(self) -> None:
        """See `Line.close`. A worker ends with its input; if it does not, it is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _GRACE_S)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._listening.cancel()

    async def _listen(self) -> None:
        """Keep the end of what the process writes to standard error."""
        assert self._process.stderr is not None
        while piece := await self._process.stderr.read(_KEPT_BYTES):
            self._said = (self._said + piece)[-_KEPT_BYTES:]

    async def _lost(self) -> LineLost:
        """How the process ended."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), _GRACE_S)
            await asyncio.wait_for(asyncio.shield(self._listening), 1)
        code = self._process.returncode
        if code is None:
            how = "it closed its output"
        elif code < 0:
            how = f"it was ended by {signal.Signals(-code).name}"
        else:
            how = f"it ended with exit code {code}"
        last = self._said.decode(errors="replace").strip().splitlines()[-1:]
        return LineLost(": ".join([how, *last]))
