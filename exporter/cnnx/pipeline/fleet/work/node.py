"""A node of a fleet: sends it files, gives it jobs, and brings back what they give."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.limits import ANSWER_BYTES, ANSWER_FILES
from cnnx.machine.environment import installed_version
from cnnx.pipeline.fleet.tasks import inside
from cnnx.pipeline.fleet.work.frames import PIECE, Frame
from cnnx.pipeline.fleet.work.job import EXPORT, Answer, Job, Lost, NodeFacts
from cnnx.pipeline.fleet.work.line import Line, LineLost
from cnnx.pipeline.progress import ProgressEvent
from cnnx.schema import Count, Digest, Positive, from_plain
from cnnx.store.digests import digest_of_file

T = TypeVar("T")
Heard = Callable[[ProgressEvent], None]


@dataclass(frozen=True, slots=True)
class _Machine:
    cpu: str
    threads: Positive
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Facts:
    facts: _Machine
    exports: bool
    last: bool


@dataclass(frozen=True, slots=True)
class _Missing:
    missing: tuple[Digest, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class _Taken:
    last: bool


@dataclass(frozen=True, slots=True)
class _Result:
    value: Any
    files: Mapping[str, tuple[Count, Digest]]
    last: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    end: bool
    last: bool


@dataclass(frozen=True, slots=True)
class _Error:
    what: str
    where: str | None
    hint: str | None
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class _Refused:
    error: _Error
    last: bool


class Node:
    """A node whose worker answers. What it sends is checked, as a node may be another version, or hostile.

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
            LineLost: it cannot be reached, or is of another version of cnnx.
        """
        node = cls(line, NodeFacts(name, (), "", 1, {}))
        told = node._decoded(_Facts, await node._ask(Frame({"do": "facts"})))
        offers = [each for each, is_there in ((device, device), (EXPORT, told.exports)) if is_there]
        machine = told.facts
        here, there = installed_version("cnnx"), machine.versions.get("cnnx")
        if here != there:
            raise LineLost(f"it has cnnx {there}, and this machine {here}: install the same version")
        node.facts = NodeFacts(name, tuple(offers), machine.cpu, machine.threads, machine.versions)
        return node

    async def run(self, job: Job, folder: Path, heard: Heard) -> Answer | Lost:
        """Do a job.

        Args:
            job: the job.
            folder: new folder for the files that it gives.
            heard: receives its progress.

        Raises:
            LineLost: the node was lost meanwhile, or answers something else than a job gives.
            OSError: a file of the job cannot be read.
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
        result = self._decoded(_Result, answer)
        if len(result.files) > ANSWER_FILES or sum(size for size, _ in result.files.values()) > ANSWER_BYTES:
            raise LineLost(f"it answered {len(result.files):,} files, which is more than any job gives")
        for name, (size, digest) in result.files.items():
            await self._fetch(name, size, digest, folder)
        return Answer(result.value, folder, self.facts, time.monotonic() - started)

    async def close(self) -> None:
        """End its worker."""
        await self._line.close()

    async def _ask(self, frame: Frame, heard: Heard = lambda _: None) -> Frame:
        """The last message that answers another; progress on the way is passed on."""
        try:
            async for found in self._line.ask(frame):
                if found.is_last:
                    return found
                heard(from_plain(ProgressEvent, found.header["event"], where="", error=EnvironmentLacks))
        except (CnnxError, KeyError) as error:
            raise self._strange(error) from None
        raise LineLost("it ended without an answer")

    def _decoded(self, kind: type[T], answer: Frame) -> T:
        try:
            return from_plain(kind, answer.header, where="", error=EnvironmentLacks)
        except EnvironmentLacks as error:
            raise self._strange(error) from None

    def _strange(self, error: Exception) -> LineLost:
        what = error.what if isinstance(error, CnnxError) else f"{error} is missing"
        return LineLost(f"its answer is not that of cnnx {installed_version('cnnx')}: {what}")

    async def _send(self, files: Mapping[str, Path], digests: Mapping[str, str]) -> Lost | None:
        """Send what the node does not have; returns why it cannot take it."""
        by_digest = {digests[name]: path for name, path in files.items()}
        answer = await self._ask(Frame({"do": "missing", "digests": list(by_digest)}))
        if refused := self._refusal(answer):
            return refused
        for digest in self._decoded(_Missing, answer).missing:
            if digest not in by_digest:
                raise LineLost("it asks for a file that the job does not have")
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
                answer = await self._ask(Frame(header, piece))
                if refused := self._refusal(answer):
                    return refused
                self._decoded(_Taken, answer)
                if end:
                    return None
                first = False

    async def _fetch(self, name: str, size: int, digest: str, folder: Path) -> None:
        try:
            path = inside(folder, name)
        except CnnxError as error:
            raise self._strange(error) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            end = False
            while not end:
                answer = await self._ask(Frame({"do": "get", "name": name, "at": stream.tell()}))
                if refused := self._refusal(answer):
                    raise LineLost(f"{name} cannot be fetched: {refused.reason}")
                stream.write(answer.payload)
                end = self._decoded(_Piece, answer).end
                if stream.tell() > size:
                    raise LineLost(f"{name} has more than the {size:,} bytes that were announced")
        if digest_of_file(path) != digest:
            raise LineLost(f"{name} arrived damaged")

    def _refusal(self, answer: Frame) -> Lost | None:
        """Why a node could not do what it was asked for."""
        if "error" not in answer.header:
            return None
        error = self._decoded(_Refused, answer).error
        where = f" ({error.where})" if error.where else ""
        hint = error.hint or "this is a bug in cnnx or a library: please report it"
        return Lost(f"{error.what}{where}, on {self.facts.name}", hint, error.elsewhere)


def _digest(path: Path) -> str:
    """SHA-256 of a file, computed again only if it changes."""
    found = path.stat()
    return _digest_of(os.fspath(path), found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=65536)
def _digest_of(path: str, *_identity: int) -> str:
    return digest_of_file(Path(path))
