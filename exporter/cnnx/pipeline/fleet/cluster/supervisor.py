"""Runs a program so that none of its processes outlives it, or outlives who started it.

A module of its own, as it stays in memory on small devices: it imports nothing of cnnx.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# `ray start` drains its node for some seconds before it stops the processes.
_GRACE_S = 20.0


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def main(arguments: Sequence[str]) -> int:
    """Run a command until it ends or SIGTERM comes, and then end every process that it left.

    Args:
        arguments: process ID of the caller, and the command.

    Returns:
        its exit code; negative if a signal ended it.
    """
    parent, *command = arguments
    end_with_parent()
    # Processes whose parent ends become children of this one, and are found below.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != int(parent):
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asked: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(time.monotonic()))
    # It sleeps until a signal comes: a process that wakes up now and then would disturb measurements.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    passed_on = False
    while (code := _ended(child.pid)) is None:
        if asked and not passed_on:
            child.send_signal(signal.SIGTERM)
            passed_on = True
        if asked and time.monotonic() - asked[0] > _GRACE_S:
            child.kill()
        select.select([readable], [], [], 0.1 if asked else None)
        with contextlib.suppress(BlockingIOError):
            os.read(readable, 4096)
    _end_the_rest()
    return code


def _ended(wanted: int) -> int | None:
    """The exit code of a child once it ended, or None; other children that ended are reaped."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == wanted:
                return os.waitstatus_to_exitcode(found[1])
    return None


def _end_the_rest() -> None:
    """Kill what is left, and reap it; the children of what is killed become children of this process."""
    while children := _children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _children() -> list[int]:
    """The children of this process, from the kernel's list of processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
                if int(fields.split()[1]) == os.getpid():
                    found.append(int(folder.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
