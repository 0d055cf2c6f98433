"""How much memory a piece of work takes at its peak, by the kernel's own account."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PROC = Path("/proc/self")
# "To reset the peak resident set size ("high water mark") to the process's current value":
# Linux, Documentation/filesystems/proc.rst, clear_refs.
_RESET_PEAK = "5"


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Resident memory of this process, all threads and libraries included; None: not known, never 0.

    On a Jetson the GPU's memory is the same memory, but what the driver allocates for it is not in here.

    Attributes:
        before_bytes: when the work began.
        peak_bytes: highest while it ran.
        after_bytes: when it had ended and its garbage was collected. Memory that the allocator keeps
            for reuse still counts, so this may exceed `before_bytes` with nothing leaked.
    """

    before_bytes: int | None
    peak_bytes: int | None
    after_bytes: int | None

    @property
    def added_bytes(self) -> int | None:
        """Peak over what was there before: a lower bound, as memory freed earlier may have been reused."""
        if self.peak_bytes is None or self.before_bytes is None:
            return None
        return self.peak_bytes - self.before_bytes


def peak_memory(run: Callable[[], T], *, proc: Path = _PROC) -> tuple[T, MemoryUse]:
    """Do something and say how much memory the process held at most meanwhile.

    Garbage is collected before and after, so that cycles left by earlier work are not laid at this one's
    door; while it runs the collector does as it always does, since that is what is being measured.

    The kernel's high-water mark (VmHWM) is reset first. Where that is not allowed (some sandboxes), the
    mark still tells the peak if the work raised it, and nothing if it did not.

    Args:
        run: the work.
        proc: the process's folder in procfs; tests give one of their own.

    Returns:
        what `run` returned, and the memory.
    """
    gc.collect()
    was_reset = _reset_peak(proc)
    mark, before = _status(proc, "VmHWM"), _status(proc, "VmRSS")
    result = run()
    peak = _status(proc, "VmHWM")
    if not was_reset and peak == mark:
        peak = None
    gc.collect()
    return result, MemoryUse(before_bytes=before, peak_bytes=peak, after_bytes=_status(proc, "VmRSS"))


def _reset_peak(proc: Path) -> bool:
    """Whether the mark was reset: written to, and seen to have come down to the present."""
    try:
        (proc / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    mark, now = _status(proc, "VmHWM"), _status(proc, "VmRSS")
    # A kernel may take the write and do nothing. The two are never quite equal: reading takes memory too.
    return mark is not None and now is not None and mark <= now * 1.05 + (1 << 20)


def resident_bytes(proc: Path = _PROC) -> int | None:
    """What this process holds now; None: not known."""
    return _status(proc, "VmRSS")


def _status(proc: Path, key: str) -> int | None:
    try:
        text = (proc / "status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
