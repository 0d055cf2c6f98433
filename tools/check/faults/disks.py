"""Disks that are full or read-only, limits on files, and errors of devices."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.check.faults.calls import Fault, Mode
from tools.check.faults.judge import badly_ended, inspected, run_again, state_after
from tools.check.faults.trials import Record, Setting, points, spread, trial

ERRORS = {
    "disk full": (Mode.FULL, errno.ENOSPC),
    "over quota": (Mode.FULL, errno.EDQUOT),
    "read-only": (Mode.READ_ONLY, errno.EROFS),
    "no permission": (Mode.READ_ONLY, errno.EACCES),
    "device error": (Mode.ONCE, errno.EIO),
}
LIMITS = (0, 100, 1_000, 10_000, 40_000)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_SHARES = (0.0, 0.25, 0.5, 0.75, 0.95)
_KIB = 1024


def errors(setting: Setting, name: str, most: int | None = None) -> Iterator[Record]:
    """Let calls fail, from each place at which a file is written.

    Args:
        name: key of `ERRORS`.
        most: maximum number of places; None: all.
    """
    mode, code = ERRORS[name]
    places = points(setting.usual.calls)
    for number, index in enumerate(spread(setting.times(most or len(places)), len(places))):
        yield trial(setting, Fault(mode, places[index], code), again=not number % 5)


def file_limits(setting: Setting) -> Iterator[Record]:
    """Set the limit that the system has for the size of files (RLIMIT_FSIZE)."""
    for limit in setting.some(LIMITS):
        record = trial(setting, Fault(file_limit=limit), again=False)
        yield {**record, "at": f"{limit} bytes", "call": ""}


def own_mounts() -> bool:
    """Let this process mount file systems that no other process sees; whether that is allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | (0 if os.geteuid() == 0 else _CLONE_NEWUSER)):
        return False
    command = ["mount", "--make-rprivate", "/"]
    return shutil.which("mount") is not None and not subprocess.run(command, capture_output=True).returncode


def small_disks(setting: Setting, place: str) -> Iterator[Record]:
    """Put a part of the sandbox on a disk (tmpfs) that has room for a share of what is written to it.

    Args:
        place: "work" or "cache".
    """
    command, usual = setting.command, setting.usual
    grows = _growth(setting, place)
    for share in setting.some(_SHARES):
        sandbox = setting.world.copy(setting.folder)
        command.prepare(sandbox)
        folder = sandbox.root / place
        size = _size(folder) // _KIB + int(grows * share) // _KIB + 8
        with _on_a_disk(folder, size):
            ended = sandbox.run(command.arguments)
            state, wrong = state_after(sandbox, usual)
            wrong += [*badly_ended(ended), *inspected(sandbox)]
            wrong += usual.without_result(ended, state)
        wrong += run_again(command, sandbox, usual, state)
        sandbox.remove()
        yield {
            "at": f"{size} KiB",
            "exit": ended.code,
            "said": ended.err.strip()[-600:] if ended.code != usual.code else "",
            "state": state,
            "wrong": wrong,
        }


def _growth(setting: Setting, place: str) -> int:
    sandbox = setting.world.copy(setting.folder)
    setting.command.prepare(sandbox)
    before = _size(sandbox.root / place)
    sandbox.run(setting.command.arguments)
    grown = _size(sandbox.root / place) - before
    sandbox.remove()
    return max(0, grown)


def _size(folder: Path) -> int:
    """Bytes of the pages that the files and folders below a folder take."""
    return sum(-(-max(1, path.lstat().st_size) // 4096) * 4096 for path in folder.rglob("*"))


@contextlib.contextmanager
def _on_a_disk(folder: Path, kib: int) -> Iterator[None]:
    """Move a folder to a disk of its own, and back."""
    kept = folder.with_name(f"{folder.name}-kept")
    folder.rename(kept)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder)], check=True)
    shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(kept)
        shutil.copytree(folder, kept, symlinks=True)
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
        kept.rename(folder)
