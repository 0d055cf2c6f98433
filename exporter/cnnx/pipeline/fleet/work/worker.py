"""The program that does jobs on a node: `python -m cnnx.pipeline.fleet.work.worker [--alone]`.

It reads messages from standard input and answers on standard output, so it needs neither a port nor Ray, and
runs in the Python that has the node's runtimes. When its input ends, it ends with all it has started: nobody
waits for its answer any more.
"""

from __future__ import annotations

import fcntl
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.machine.environment import cpu_model, installed_version, usable_cores
from cnnx.pipeline.fleet.tasks import inside, task_named
from cnnx.pipeline.fleet.work.contents import Contents, Receipt
from cnnx.pipeline.fleet.work.frames import PIECE, WAITING, Frame, packed, read_frame
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import ProgressEvent
from cnnx.store.cache import Store
from cnnx.store.digests import digest_of_file
from cnnx.store.drafts import make_folder
from cnnx.store.files import scratch_folder, writing

_PACKAGES = ("cnnx", "numpy", "onnx", "onnxruntime", "torch", "tensorrt")
_EXPORT_NEEDS = ("torch", "onnxscript", "onnxruntime")
_BETWEEN_EVENTS_S = 0.5
_GRACE_S = 5.0


class Worker:
    """Answers messages, one at a time.

    Args:
        write: sends an answer.
        alone: whether other workers of this machine wait while it does a job. A cluster sees to that itself.
    """

    def __init__(self, write: Callable[[Frame], None], *, alone: bool) -> None:
        self._write, self._alone = write, alone
        self._store = Store()
        self._contents = Contents(self._store)
        self._receipts: dict[str, Receipt] = {}
        self._out: Path | None = None
        self._stack = ExitStack()
        self._said = 0.0

    def answer(self, frame: Frame) -> None:
        """Do what a message asks for, and send the answer or the error."""
        handlers: dict[str, Callable[[Frame], Frame]] = {
            "facts": self._facts,
            "missing": self._missing,
            "put": self._put,
            "run": self._run,
            "get": self._get,
        }
        try:
            answer = handlers[str(frame.header.get("do"))](frame)
        except CnnxError as error:
            told = {"what": error.what, "where": error.where, "hint": error.hint}
            answer = Frame({"error": {**told, "elsewhere": isinstance(error, EnvironmentLacks)}})
        except Exception as error:  # a fault of cnnx or a library must not end the worker
            traceback.print_exc()  # to standard error, whose end is shown if the worker dies
            what = f"{type(error).__name__}: {error}"
            answer = Frame({"error": {"what": what, "where": None, "hint": None, "elsewhere": False}})
        self._write(Frame({**answer.header, "last": True}, answer.payload))

    def close(self) -> None:
        """Remove temporary files."""
        self._stack.close()
        for receipt in self._receipts.values():
            receipt.drop()

    def _facts(self, _: Frame) -> Frame:
        found = {each: version for each in _PACKAGES if (version := installed_version(each))}
        versions = {"python": platform.python_version(), **found}
        exports = all(find_spec(each) is not None for each in _EXPORT_NEEDS)
        facts = {"cpu": cpu_model() or platform.machine(), "threads": usable_cores(), "versions": versions}
        return Frame({"facts": facts, "exports": exports})

    def _missing(self, frame: Frame) -> Frame:
        return Frame({"missing": self._contents.missing(frame.header["digests"])})

    def _put(self, frame: Frame) -> Frame:
        digest = str(frame.header["digest"])
        if frame.header["first"]:
            if before := self._receipts.pop(digest, None):
                before.drop()
            self._receipts[digest] = self._contents.receive(digest)
        self._receipts[digest].take(frame.payload)
        if frame.header["end"]:
            self._receipts.pop(digest).end()
        return Frame({})

    def _run(self, frame: Frame) -> Frame:
        header = frame.header
        task = task_named(header["task"])
        self._stack.close()
        out = self._stack.enter_context(scratch_folder())
        with (
            self._slot() if self._alone else nullcontext(),
            self._contents.laid_out(header["files"], stays=header["stays"]) as files,
        ):
            value = task(header["arguments"], files, out, listener=self._listen)
        self._out = out
        wrote = {
            path.relative_to(out).as_posix(): [path.stat().st_size, digest_of_file(path)]
            for path in sorted(out.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }
        return Frame({"value": plain(value), "files": wrote})

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Hold this machine, so that one job runs at a time."""
        file = self._store.root / "locks" / "slot"
        with writing(file):
            make_folder(file.parent)
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._listen(ProgressEvent(WAITING))
                    time.sleep(1)
            yield
        finally:
            os.close(handle)

    def _get(self, frame: Frame) -> Frame:
        assert self._out is not None
        with inside(self._out, frame.header["name"]).open("rb") as stream:
            stream.seek(frame.header["at"])
            piece = stream.read(PIECE)
        return Frame({"end": len(piece) < PIECE}, piece)

    def _listen(self, event: ProgressEvent) -> None:
        """Pass progress on, not more often than a person can read."""
        now = time.monotonic()
        if event.seconds is None and not event.note and now - self._said < _BETWEEN_EVENTS_S:
            return
        self._said = now
        self._write(Frame({"event": plain(event)}))


def main() -> None:
    """Answer messages until standard input ends."""
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)  # all that is started below ends with it
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what libraries print is no message
    sys.stdout = sys.stderr
    frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(incoming, frames), daemon=True).start()

    def write(frame: Frame) -> None:
        outgoing.write(packed(frame))
        outgoing.flush()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    worker = Worker(write, alone="--alone" in sys.argv)
    try:
        while True:
            worker.answer(frames.get())
    finally:
        worker.close()
        os.killpg(0, signal.SIGKILL)


def _read(incoming: BinaryIO, frames: queue.SimpleQueue[Frame]) -> None:
    try:
        while (frame := read_frame(incoming)) is not None:
            frames.put(frame)
    finally:  # the machine that gave the work is gone, or sends what are no messages
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_S)
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
