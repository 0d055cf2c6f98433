"""A real worker behind a pipe: what it is sent arrives whole or not at all, and it ends with its input."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cnnx.errors import EnvironmentLacks
from cnnx.pipeline.fleet.work.frames import PIECE, Frame
from cnnx.pipeline.fleet.work.job import Answer, Job, Lost
from cnnx.pipeline.fleet.work.line import LineLost, ProcessLine
from cnnx.pipeline.fleet.work.node import Node
from tests.doubles.local_fleet import WORKER


async def opened(folder: Path) -> ProcessLine:
    environment = {**os.environ, "CNNX_CACHE": str(folder)}
    return await ProcessLine.open([sys.executable, "-m", WORKER], environment=environment)


def with_worker(folder: Path, work: Callable[[ProcessLine], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        line = await opened(folder)
        try:
            await work(line)
        finally:
            await line.close()

    asyncio.run(run())


async def answer(line: ProcessLine, header: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
    frames = [frame async for frame in line.ask(Frame(header, payload))]
    return frames[-1].header


def test_each_content_travels_once_and_survives_the_worker(tmp_path: Path) -> None:
    """Two names with one content, several pieces, and nothing at all; a task that cannot be done."""
    files = {"a/large": tmp_path / "large", "b/same": tmp_path / "same", "empty": tmp_path / "empty"}
    content = os.urandom(PIECE + 17)
    for path, data in zip(files.values(), (content, content, b""), strict=True):
        path.write_bytes(data)
    job = Job("job", "export", {"model": "no such", "precision": "fp16", "weights": "standin"}, "cpu", files)
    sent: list[str] = []

    class Counted:
        def __init__(self, line: ProcessLine) -> None:
            self._line = line

        async def ask(self, frame: Frame) -> AsyncIterator[Frame]:
            if frame.header["do"] == "put" and frame.header["first"]:
                sent.append(frame.header["digest"])
            async for each in self._line.ask(frame):
                yield each

        async def close(self) -> None:
            pass

    async def work(line: ProcessLine) -> None:
        node = await Node.open(Counted(line), name="here", device="cpu")
        assert node.facts.versions["python"] and node.facts.threads >= 1
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        outcome = await node.run(job, out, lambda _: None)
        assert isinstance(outcome, Lost) and "on here" in outcome.reason and outcome.hint

    with_worker(tmp_path / "cache", work)
    assert sorted(sent) == sorted({hashlib.sha256(data).hexdigest() for data in (content, b"")})
    with_worker(tmp_path / "cache", work)
    assert len(sent) == 2  # the second worker found them
    [kept] = [path for path in (tmp_path / "cache").rglob("content") if path.stat().st_size]
    kept.chmod(0o644)
    kept.write_bytes(content[:-1] + b"?")
    with_worker(tmp_path / "cache", work)
    assert len(sent) == 3  # what was changed on the node is sent again


def test_a_file_that_changes_on_the_way_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async def work(line: ProcessLine) -> None:
        header = {"do": "put", "digest": "0" * 64, "first": True, "end": True}
        refused = await answer(line, header, b"something else")
        assert "SHA-256" in refused["error"]["what"]
        assert (await answer(line, {"do": "missing", "digests": ["0" * 64]}))["missing"] == ["0" * 64]

    with_worker(tmp_path, work)
    assert not [path for path in (tmp_path / "fleet-files").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a//b", "", "a/../../b", "a\\b", "a\0b"])
def test_no_file_leaves_its_folder(tmp_path: Path, name: str) -> None:
    digest = hashlib.sha256(b"x").hexdigest()

    async def work(line: ProcessLine) -> None:
        await answer(line, {"do": "put", "digest": digest, "first": True, "end": True}, b"x")
        asked = {"do": "run", "task": "export", "arguments": {}, "files": {name: digest}, "stays": True}
        assert "is not the name of a file" in (await answer(line, asked))["error"]["what"]
        asked["task"] = "os"
        assert "unknown task" in (await answer(line, asked))["error"]["what"]

    with_worker(tmp_path / "cache", work)
    assert not (tmp_path / "outside").exists()


def test_a_worker_ends_when_nobody_gives_it_work_any_more(tmp_path: Path) -> None:
    async def run() -> None:
        line = await opened(tmp_path)
        await answer(line, {"do": "facts"})
        process = line._process
        await line.close()
        assert process.returncode is not None
        line = await opened(tmp_path)
        line._process.kill()
        with pytest.raises(LineLost, match="SIGKILL"):
            await answer(line, {"do": "facts"})
        await line.close()

    started = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["echo", "Welcome to this machine, and have a nice day"], "is not that of cnnx's worker"),
        (["false"], "it ended with exit code 1"),
        (["no-such-program"], "no-such-program cannot be started"),
    ],
)
def test_a_program_that_is_no_worker_is_told_apart(command: list[str], says: str) -> None:
    async def run() -> None:
        line = await ProcessLine.open(command)
        try:
            await answer(line, {"do": "facts"})
        finally:
            await line.close()

    with pytest.raises((LineLost, EnvironmentLacks), match=says):
        asyncio.run(run())


def test_progress_arrives_while_a_job_runs(tmp_path: Path) -> None:
    heard: list[str] = []

    async def work(line: ProcessLine) -> None:
        node = await Node.open(line, name="here", device="cpu")
        arguments = {
            "model": "lenet5",
            "precision": "fp32",
            "weights": "pretrained",
            "batch": [1, 1],
            "images": 16,
        }
        out = tmp_path / "out"
        out.mkdir()
        outcome = await node.run(
            Job("lenet5", "export", arguments, "cpu"), out, lambda event: heard.append(event.step)
        )
        assert isinstance(outcome, Answer)
        assert (out / "bundle/manifest.json").is_file() and list(out.glob("bundle/runs/*.json"))

    with_worker(tmp_path / "cache", work)
    assert "ONNX graph" in heard and "validation" in heard
