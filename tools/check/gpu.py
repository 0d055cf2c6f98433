"""Ten probes of what cnnx does on a GPU, in at most six minutes.

python -m tools.check.gpu [PROBE ...] [--out FILE]

Each probe runs in a process of its own with a time limit, so that a crash ends no other. Each finding is a
line of JSON as soon as it is known; a table of all of them comes last. What a probe needs beside CUDA's
runtime is in cnnx's core: its kernels are copies on the device, so neither TensorRT nor PyTorch has to be
there; an engine is tried, too, where TensorRT or TensorRT for RTX runs. The exit code is 0 if all is as
expected, 1 if not, 4 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tools import ROOT
from tools.check.probes import cuda, nvml, power
from tools.check.probes.probe import Machine, in_child
from tools.markdown import table

Finding = dict[str, Any]
RUN = {**cuda.PROBES, **nvml.PROBES, **power.PROBES}
LIMITS_S: Mapping[str, int] = {
    "smoke": 40,
    "queueing": 90,
    "errors": 20,
    "sticky": 30,
    "nvml": 25,
    "sensors": 25,
    "processes": 15,
    "visible": 35,
    "cost": 40,
    "energy": 40,
}
"""Probe -> its time limit, in the order in which they run."""
_NO_GPU = 4
_MOST_WIDTH = 90


@dataclass(frozen=True)
class Command:
    """How a probe is started; tests start something else."""

    arguments: Callable[[str], Sequence[str]]
    limits_s: Mapping[str, float]


COMMAND = Command(lambda name: (sys.executable, "-m", "tools.check.gpu", "--here", name), LIMITS_S)


def findings(names: Iterable[str], command: Command = COMMAND) -> Iterator[Finding]:
    """What each probe finds, as soon as it tells; last of each, how it ended."""
    for name in names:
        start = time.monotonic()
        process = subprocess.Popen(
            command.arguments(name),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        told, said = _reader(process.stdout), _reader(process.stderr)
        in_time = True
        while (line := _next(told, start + command.limits_s[name])) is not None:
            if not line:
                in_time = False
                break
            yield _finding(name, line)
        if not in_time:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        ended = _ended(code, _rest(said)) if in_time else f"time limit of {command.limits_s[name]:g} s"
        taken = round(time.monotonic() - start, 1)
        yield {"probe": name, "what": "ended", "value": ended, "s": taken, "holds": ended == "well"}


def _reader(stream: IO[str] | None) -> queue.Queue[str | None]:
    """Lines of a stream, as they come; None at its end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _next(lines: queue.Queue[str | None], until: float) -> str | None:
    """The next line; empty if there is none in time, None at the end."""
    try:
        return lines.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        return ""


def _rest(lines: queue.Queue[str | None]) -> list[str]:
    """All lines of a process that has ended."""
    until = time.monotonic() + 2
    return list(iter(lambda: _next(lines, until) or None, None))


def _finding(name: str, line: str) -> Finding:
    """A finding from a probe's line; libraries print, too."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    told = found if isinstance(found, dict) else {"what": "printed", "value": line.rstrip()}
    return {"probe": name, **told}


def _ended(code: int, said: Sequence[str]) -> str:
    if code == 0:
        return "well"
    last = said[-1].strip() if said else "nothing was printed"
    return f"signal {-code}: {last}" if code < 0 else f"exit code {code}: {last}"


def here(name: str, machine: Machine | None = None, write: Callable[[str], object] = print) -> None:
    """Run one probe in this process; it writes a line of JSON for each finding."""

    def tell(what: str, value: Any, *, holds: bool | None = None, expected: str = "") -> None:
        found: Finding = {"what": what, "value": value}
        if holds is not None:
            found |= {"holds": holds, "expected": expected}
        write(json.dumps(found, default=str))
        sys.stdout.flush()

    RUN[name](machine or Machine(), tell)


def as_table(found: Sequence[Finding]) -> str:
    """All findings as a table; what is not as expected is marked."""
    rows = []
    for each in found:
        value = _short(each["value"])
        if each.get("holds") is False and each.get("expected"):
            value += f" (expected: {each['expected']})"
        mark = {True: "yes", False: "NO"}.get(each.get("holds"), "")
        rows.append([each["probe"], each["what"], value, mark])
    return table(["Probe", "What", "Found", "As expected"], rows)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        words = ", ".join(f"{key}: {_short(each)}" for key, each in value.items())
    else:
        words = " ".join(str(value).split())
    return words if len(words) <= _MOST_WIDTH else words[: _MOST_WIDTH - 3] + "..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the probes asked for and write what they find."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check.gpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("probes", nargs="*", metavar="PROBE", help=f"one or more of {', '.join(LIMITS_S)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the lines to a file, too")
    parser.add_argument("--here", metavar="PROBE", choices=LIMITS_S, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.here:
        here(asked.here)
        return 0
    if unknown := set(asked.probes) - LIMITS_S.keys():
        parser.error(f"no such probe: {', '.join(sorted(unknown))}; there are {', '.join(LIMITS_S)}")
    found = in_child("present")
    if reason := found.get("error") or found["why_not"]:
        print(f"no GPU: {reason}", file=sys.stderr)
        return _NO_GPU
    return write_all(findings(asked.probes or LIMITS_S), asked.out)


def write_all(found: Iterable[Finding], out: Path | None = None) -> int:
    """Write each finding at once, then the table; returns the exit code."""
    kept = []
    for each in found:
        kept.append(each)
        line = json.dumps(each)
        print(line, flush=True)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
    print(f"\n{as_table(kept)}")
    return int(any(each.get("holds") is False for each in kept))


if __name__ == "__main__":
    sys.exit(main())
