"""Signals that a process can handle, and a standard output that nobody reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from tools.check.faults.calls import Fault, Mode
from tools.check.faults.trials import Record, Setting, spread, trial

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_TIMES = 4
_UNREAD = {
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "both closed": ">&- 2>&-",
    "stdin closed": "<&-",
    "a pipe without a reader": "| true",
    "a full disk for stdout": "> /dev/full",
    "a full disk for stderr": "2> /dev/full",
}


def interrupted(setting: Setting, name: str) -> Iterator[Record]:
    """Send a signal at calls that change files."""
    for at in spread(setting.times(_TIMES), len(setting.usual.calls)):
        yield trial(setting, Fault(Mode.SEND, at, signal.Signals[name]))


def unread(setting: Setting) -> Iterator[Record]:
    """Close standard streams of a process of its own, or let its output lead nowhere."""
    for name, how in _UNREAD.items():
        sandbox = setting.world.copy(setting.folder)
        setting.command.prepare(sandbox)
        folders = {"CNNX_CACHE": str(sandbox.root / "cache"), "TMPDIR": str(sandbox.root / "tmp")}
        script = f'"$0" -m cnnx "$@" {how}; exit "${{PIPESTATUS[0]}}"'
        ended = subprocess.run(
            ["bash", "-c", script, sys.executable, *setting.command.arguments],
            cwd=sandbox.root / "work",
            env={**os.environ, **folders},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        expected = {4 if name == "a full disk for stdout" else setting.usual.code}
        if name == "a pipe without a reader":  # which may be gone before or after the output is written
            expected.add(128 + signal.SIGPIPE)
        wrong = [] if ended.returncode in expected else [f"exit code {ended.returncode}"]
        if "Traceback" in ended.stderr or "Exception ignored" in ended.stderr:
            wrong.append("a traceback")
        sandbox.remove()
        yield {"at": name, "exit": ended.returncode, "said": ended.stderr.strip()[-600:], "wrong": wrong}
