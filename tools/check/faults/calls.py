"""Makes a system call of a process go wrong, by a library that is preloaded (calls.c)."""

from __future__ import annotations

import ctypes
import enum
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import ROOT

_SOURCE = Path(__file__).with_name("calls.c")
_VARIABLE = "LD_PRELOAD"


class Mode(enum.IntEnum):
    """What happens at a call; see calls.c, which has the same values."""

    OFF = 0
    COUNT = 1
    SEND = 2
    ONCE = 3
    FULL = 4
    READ_ONLY = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in a process.

    Attributes:
        mode: what happens.
        at: number of the call at which it happens, from 0.
        code: the signal of `SEND`, or the errno of a call that fails.
        below: folders whose files count, relative to the sandbox.
        reads: whether calls that open files for reading count, too.
        clock_s: seconds by which the wall clock jumps at that call.
        file_limit: RLIMIT_FSIZE of the process, in bytes; None: unlimited.
    """

    mode: Mode = Mode.COUNT
    at: int = 0
    code: int = 0
    below: Sequence[str] = (".",)
    reads: bool = False
    clock_s: int = 0
    file_limit: int | None = None


def library() -> Path:
    """The compiled library.

    Raises:
        SystemExit: there is no C compiler.
    """
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    built = ROOT / "build" / "faults" / f"calls-{digest}.so"
    if not built.is_file():
        built.parent.mkdir(parents=True, exist_ok=True)
        draft = built.with_suffix(f".{os.getpid()}")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(draft), str(_SOURCE), "-ldl"]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise SystemExit("a C compiler (cc) is needed: apt install gcc libc6-dev") from None
        draft.replace(built)
    return built


def preload(module: str) -> None:
    """Start `python -m module` again with the library, unless it is loaded."""
    if os.environ.get(_VARIABLE) != str(library()):
        os.environ[_VARIABLE] = str(library())
        os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])


def arm(fault: Fault, root: Path, log: int) -> None:
    """Let a fault happen in this process; the calls that it concerns are written to `log`."""
    loaded = ctypes.CDLL(str(library()))
    for folder in fault.below:
        loaded.faults_watch(os.fsencode(os.path.normpath(root / folder)))
    loaded.faults_count_reads(int(fault.reads))
    loaded.faults_clock(ctypes.c_longlong(fault.clock_s), ctypes.c_long(fault.at))
    loaded.faults_arm(int(fault.mode), ctypes.c_long(fault.at), fault.code, log)
