"""A node of a fleet: sends it files, gives it jobs, and brings back what they give."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cnnx.errors import EnvironmentLacks
from cnnx.pipeline.fleet.tasks import inside
from cnnx.pipeline.fleet.work.frames import PIECE, Frame
from cnnx.pipeline.fleet.work.job import EXPORT, Answer, Job, Lost, NodeFacts
from cnnx.pipeline.fleet.work.line import Line, LineLost
from cnnx.pipeline.progress import ProgressEvent
from cnnx.schema import from_plain
from cnnx.store.digests import digest_of_file

Heard = Callable[[ProgressEvent], None]


class Node:
    """A node whose worker answers.

    Attributes:
        facts: what it is, and what its results may depend on.
    """

    def __init__(self, line: Line, facts: NodeFacts) -> None:
        self._line = line
        self.facts = facts

    @classmethod
    async def open(cls, line: Line, *, name: str, device: str) -> Node:
        """Ask a worker what it is.

        Raises:
            LineLost: it cannot be reached.
            EnvironmentLacks: it is not cnnx's worker, or of another version.
        """
        [answer] = [frame async for frame in line.ask(Frame({"do": "facts"}))]
        offers = [device] if device else []
        offers += [EXPORT] if answer.header.get("exports") else []
        told = {"name": name, "offers": offers, **dict(answer.header.get("facts") or {})}
        facts = from_plain(NodeFacts, told, where=name, error=EnvironmentLacks)
        return cls(line, facts)

    async def run(self, job: Job, folder: Path, heard: Heard) -> Answer | Lost:
        """Do a job.

        Args:
            job: the job.
            folder: new folder for the files that it gives.
            heard: receives its progress.

        Raises:
            LineLost: the node was lost meanwhile.
        """
        started = time.monotonic()
        digests = {name: _digest(path) for name, path in job.files.items()}
        if refused := await self._send(job.files, digests):
            return refused
        asked = {
            "do": "run",
            "task": job.task,
            "arguments": job.arguments,
            "files": digests,
            "stays": job.stays,
        }
        answer = await self._ask(Frame(asked), heard)
        if refused := self._refusal(answer):
            return refused
        for name, digest in answer.header["files"].items():
            await self._fetch(name, digest, folder)
        return Answer(answer.header["value"], folder, self.facts.name, time.monotonic() - started)

    async def close(self) -> None:
        """End its worker."""
        await self._line.close()

    async def _ask(self, frame: Frame, heard: Heard = lambda _: None) -> Frame:
        """The last message that answers another; progress on the way is passed on."""
        async for found in self._line.ask(frame):
            if found.is_last:
                return found
            heard(ProgressEvent(**found.header["event"]))
        raise LineLost("it ended without an answer")

    async def _send(self, files: Mapping[str, Path], digests: Mapping[str, str]) -> Lost | None:
        """Send what the node does not have; returns why it cannot take it."""
        by_digest = {digests[name]: path for name, path in files.items()}
        answer = await self._ask(Frame({"do": "missing", "digests": list(by_digest)}))
        if refused := self._refusal(answer):
            return refused
        for digest in answer.header["missing"]:
            if refused := await self._put(by_digest[digest], digest):
                return refused
        return None

    async def _put(self, path: Path, digest: str) -> Lost | None:
        first = True
        with path.open("rb") as stream:
            while True:
                piece = stream.read(PIECE)
                end = len(piece) < PIECE
                header = {"do": "put", "digest": digest, "first": first, "end": end}
                if refused := self._refusal(await self._ask(Frame(header, piece))):
                    return refused
                if end:
                    return None
                first = False

    async def _fetch(self, name: str, digest: str, folder: Path) -> None:
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            while True:
                answer = await self._ask(Frame({"do": "get", "name": name, "at": stream.tell()}))
                if "error" in answer.header:
                    raise LineLost(f"{name} cannot be fetched: {answer.header['error']['what']}")
                stream.write(answer.payload)
                if answer.header["end"]:
                    break
        if digest_of_file(path) != digest:
            raise LineLost(f"{name} arrived damaged")

    def _refusal(self, answer: Frame) -> Lost | None:
        """Why a node could not do what it was asked for."""
        error: dict[str, Any] | None = answer.header.get("error")
        if error is None:
            return None
        where = f" ({error['where']})" if error["where"] else ""
        hint = error["hint"] or "this is a bug in cnnx or a library: please report it"
        return Lost(f"{error['what']}{where}, on {self.facts.name}", hint, bool(error["of_node"]))


def remove(folder: Path) -> None:
    """Remove a folder of fetched files."""
    shutil.rmtree(folder, ignore_errors=True)


def _digest(path: Path) -> str:
    """SHA-256 of a file, computed again only if it changes."""
    found = path.stat()
    return _digest_of(os.fspath(path), found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=65536)
def _digest_of(path: str, *_identity: int) -> str:
    return digest_of_file(Path(path))
