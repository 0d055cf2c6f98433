"""Tries one input at a door under limits, and judges what came of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnx.errors import CnnxError
from tools.check.fuzz.door import Door
from tools.memory import memory

SECONDS = 10
"""What takes longer hangs. Time of the CPU, so that other work on the machine decides nothing."""
WAITED_SECONDS = 180
"""What takes longer by the clock hangs, too."""
BYTES = 1 << 30
"""Peak of the process that reads the input, with everything it has imported."""
_HEADROOM, _HEADROOM_OF_COMMANDS = (
    1 << 30,
    6 << 30,
)  # address space: commands load libraries, and start threads
_CODES = range(7)

Kind = Literal["refused", "same", "valid", "finding"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one input.

    Attributes:
        kind: refused; the same result as without the change; another result that is right; or a finding.
        what: class of the error or of the change, or what is wrong.
        seconds: time of the CPU to read it.
        peak_bytes: peak memory of the process meanwhile.
        detail: traceback or message of a finding.
    """

    kind: Kind
    what: str
    seconds: float = 0.0
    peak_bytes: int = 0
    detail: str = ""


class TooSlow(BaseException):
    """The time is over. Not an `Exception`, so that nothing takes it for a damaged file."""


def limit_memory(headroom: int = _HEADROOM) -> None:
    """Let this process allocate little more than it has, so that a bomb hits it alone."""
    size = memory("VmSize") + headroom
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, most))


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` when the time is over."""

    def over(*_: object) -> None:
        raise TooSlow

    timers = {
        signal.ITIMER_PROF: (signal.SIGPROF, seconds),
        signal.ITIMER_REAL: (signal.SIGALRM, seconds * WAITED_SECONDS / SECONDS),
    }
    for timer, (number, time_s) in timers.items():
        signal.signal(number, over)
        signal.setitimer(timer, time_s)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)


def judge(door: Door, folder: Path, before: Any) -> Judged:
    """Read a changed input; `before` is what the valid one gave."""
    _forget_peak()
    start = time.process_time()
    try:
        with alarm(SECONDS):
            try:
                after = door.read(folder)
            finally:
                seconds, peak = time.process_time() - start, memory("VmHWM")
    except TooSlow:
        return Judged("finding", "hang", SECONDS, peak, traceback.format_exc())
    except Exception as error:
        found = None if isinstance(error, MemoryError) else refused(error)
        if found is None:
            what = f"fault: {type(error).__name__}"
            return Judged("finding", what, seconds, peak, traceback.format_exc())
        judged = Judged("refused", type(found).__name__, seconds, peak)
        if not found.hint:
            judged = Judged("finding", "refused without a hint", seconds, peak, str(found))
        if found.exit_code not in _CODES:
            judged = Judged("finding", f"exit code {found.exit_code}", seconds, peak, str(found))
    else:
        judged = _compared(door, before, after, folder, seconds, peak)
    if peak > BYTES:
        return Judged("finding", "memory", seconds, peak, f"{peak:,} bytes; {judged}")
    return judged


def _compared(door: Door, before: Any, after: Any, folder: Path, seconds: float, peak: int) -> Judged:
    if repr(before) == repr(after):
        return Judged("same", "same", seconds, peak)
    try:
        with alarm(2 * SECONDS):
            change = door.legitimate(before, after, folder)
    except (Exception, TooSlow):
        return Judged("finding", "unexplained", seconds, peak, traceback.format_exc())
    if change:
        return Judged("valid", change, seconds, peak)
    return Judged("finding", "wrong result", seconds, peak, f"{before!r:.2000}\n{after!r:.2000}")


def refused(error: Exception) -> CnnxError | None:
    """The refusal that a command would print for an error; None if it would report a fault of cnnx."""
    from cnnx.cli.ui import _refusal

    return _refusal(error)


def judge_command(
    arguments: list[str],
    folder: Path,
    known: Judged,
    *,
    variables: Mapping[str, str] = os.environ,
    as_json: bool = True,
    lenient: bool = False,
) -> Judged:
    """Run the command in a child of this process, which has imported what it needs.

    Args:
        folder: working folder of the command.
        known: what reading the same input gave.
        variables: all environment variables of the command.
        as_json: it prints JSON.
        lenient: see `Door.lenient`.
    """
    out = folder / "stdout"
    child = os.fork()
    if child == 0:
        _run_command([*arguments, *(["--json"] * as_json)], folder, out, dict(variables))
    status, usage = _waited(child)
    seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    printed = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
    errors = out.with_name("stderr").read_text(encoding="utf-8", errors="replace")
    code, detail = os.waitstatus_to_exitcode(status), f"{arguments}\n{printed[-3000:]}\n{errors[-3000:]}"

    def finding(what: str) -> Judged:
        return Judged("finding", f"command: {what}", seconds, peak, f"exit {code}, {detail}")

    if code not in _CODES:
        return finding("hang" if code in (-signal.SIGKILL, -signal.SIGXCPU) else f"exit {code}")
    if "Traceback" in printed + errors:
        return finding("traceback")
    if peak > BYTES:
        return finding("memory")
    if known.kind == "refused" and code == 0 and not lenient:
        return finding("took what was refused")
    try:
        if as_json:
            json.loads(printed)
    except ValueError:
        return finding("no JSON")
    return Judged(known.kind, f"command: exit {code}", seconds, peak)


def _run_command(arguments: list[str], folder: Path, out: Path, variables: dict[str, str]) -> None:
    """In the child: become the command. Ends the process."""
    code = 70
    try:
        limit_memory(_HEADROOM_OF_COMMANDS)
        resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        for name, number in ((out, 1), (out.with_name("stderr"), 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding="utf-8", errors="backslashreplace")
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding="utf-8", errors="backslashreplace")
        sys.argv = ["cnnx", *arguments]
        from cnnx.cli import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _waited(child: int) -> tuple[int, resource.struct_rusage]:
    """Wait for a child, and kill it when its time is over."""
    end = time.monotonic() + WAITED_SECONDS
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(0.005)


def _forget_peak() -> None:
    """Let VmHWM start again from the current size; where the kernel refuses, it is that of all inputs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
