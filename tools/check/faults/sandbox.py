"""Runs commands of cnnx in forked processes with a fault, each in folders of its own.

The process that forks has imported everything, so that a command costs what it does and not seconds of
imports. Two things are quicker than in a process of its own: an export measures latency for 20 ms, and the
memory of a network is measured in a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tools.check.faults.calls import Fault, Mode, arm

_PATIENCE_S = 240.0
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended.

    Attributes:
        code: exit code; -N if signal N ended it.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
        calls: the calls that concerned its fault, "name path" with paths relative to the sandbox.
    """

    code: int
    out: str
    err: str
    calls: tuple[str, ...]


class Running:
    """A command that was started."""

    def __init__(self, process: int, root: Path, log: Path, printed: Sequence[int]) -> None:
        """`printed`: pipes of standard output and standard error, to be read."""
        self.process, self._root, self._log, self._printed = process, root, log, printed
        self._status: int | None = None

    def stopped(self) -> bool:
        """Wait until it is stopped by a signal, or ends; whether it was stopped."""
        status = self._wait(os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._status = status
        return False

    def go_on(self) -> None:
        """Let a stopped process go on."""
        os.kill(self.process, signal.SIGCONT)

    def has_ended(self, within_s: float) -> bool:
        """Whether it ends within this time."""
        end = time.monotonic() + within_s
        while self._status is None:
            if (found := os.waitpid(self.process, os.WNOHANG))[0]:
                self._status = found[1]
            elif time.monotonic() >= end:
                return False
            else:
                time.sleep(0.01)
        return True

    def wait(self) -> Ended:
        """Wait until it ends. One that hangs is killed, and its exit code is that of SIGALRM."""
        status = self._wait(0) if self._status is None else self._status
        calls = self._log.read_text(errors="replace").replace(f"{self._root}/", "").splitlines()
        self._log.unlink()
        out, err = map(_rest_of, self._printed)
        return Ended(os.waitstatus_to_exitcode(status), out, err, tuple(calls))

    def _wait(self, flags: int) -> int:
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            found, status = os.waitpid(self.process, flags | os.WNOHANG)
            if found:
                return status
            time.sleep(0.005)
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return int(signal.SIGALRM)


class Sandbox:
    """A folder with the working folder, the cache and the temporary folder of commands."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        for name in ("work", "cache", "tmp", "home"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def copy(self, root: Path) -> Sandbox:
        """A copy with its own folders, in which files keep their times."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.root, root, symlinks=True)
        return Sandbox(root)

    def remove(self) -> None:
        """Remove it with all its files."""
        shutil.rmtree(self.root, ignore_errors=True)

    def start(
        self,
        arguments: Sequence[str],
        fault: Fault | None = None,
        *,
        before: Callable[[], None] = lambda: None,
    ) -> Running:
        """Start a command in the working folder; `before` is called in its process."""
        log, name = tempfile.mkstemp(prefix="calls-", dir=self.root.parent)
        pipes = [os.pipe() for _ in range(2)]
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            try:
                _prepare(self.root, [writable for _, writable in pipes])
                before()
                code = _run(arguments, fault or Fault(Mode.OFF), self.root, log)
            except BaseException:
                traceback.print_exc()
                code = 1
            finally:
                os._exit(code)
        for handle in (log, *(writable for _, writable in pipes)):
            os.close(handle)
        return Running(process, self.root, Path(name), [readable for readable, _ in pipes])

    def run(self, arguments: Sequence[str], fault: Fault | None = None) -> Ended:
        """Run a command in the working folder."""
        return self.start(arguments, fault).wait()


def _rest_of(pipe: int) -> str:
    """What is in a pipe whose writers may not have closed it."""
    os.set_blocking(pipe, False)
    read = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, _PIPE_BYTES):
            read += part
    os.close(pipe)
    return read.decode(errors="replace")


def _prepare(root: Path, streams: Sequence[int]) -> None:
    """Let this process use the folders of a sandbox, and print to these pipes.

    Pipes and not files, as the limit for the size of files would concern those, too.
    """
    os.chdir(root / "work")
    folders = {"CNNX_CACHE": "cache", "TMPDIR": "tmp", "HOME": "home"}
    os.environ.update({name: str(root / folder) for name, folder in folders.items()}, COLUMNS="200")
    tempfile.tempdir = None
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, pipe in enumerate(streams, start=1):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.dup2(pipe, number)


def _run(arguments: Sequence[str], fault: Fault, root: Path, log: int) -> int:
    """Run a command with a fault in this process; its exit code."""
    from cnnx.cli import main

    sys.argv = ["cnnx", *arguments]
    code = 1
    try:
        if fault.file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_limit, fault.file_limit))
        arm(fault, root, log)
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def warm(*, torch: bool) -> None:
    """Import what commands need, and shorten the measurement of an export, before anything is forked."""
    import cnnx
    from cnnx.store.own_code import closure

    if torch:
        importlib.import_module("onnxscript")
        importlib.import_module("torch")
    for module in pkgutil.walk_packages(cnnx.__path__, "cnnx."):
        if ".program" in module.name or module.name.endswith("__main__"):
            continue
        if not torch and module.name.startswith(("cnnx.models.", "cnnx.weights", "cnnx.runtimes.eager")):
            continue
        with contextlib.suppress(Exception):
            importlib.import_module(module.name)
    closure("cnnx.pipeline", "cnnx.cli")
    _shorten()
    gc.freeze()  # so that a process neither looks through what was imported nor copies its pages


def _shorten() -> None:
    from cnnx.measure import footprint
    from cnnx.pipeline.bench import latency
    from cnnx.pipeline.export import export

    export._GLANCE = latency.Effort(min_seconds=0.02, min_samples=5, max_seconds=1.0)
    errors = {name: getattr(subprocess, name) for name in ("CalledProcessError", "TimeoutExpired")}
    vars(footprint)["subprocess"] = SimpleNamespace(run=_run_in_a_fork, **errors)


def _run_in_a_fork(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run the process that measures memory, whose request is its last argument."""
    from cnnx.measure import footprint_process

    readable, writable = os.pipe()
    process = os.fork()
    if not process:
        os.dup2(writable, 1)
        code = footprint_process.main([command[-1]])
        sys.stdout.flush()
        os._exit(code)
    os.close(writable)
    with os.fdopen(readable) as printed:
        out = printed.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return subprocess.CompletedProcess(list(command), code, out, "")
