"""Peak memory of a function call, as reported by the kernel."""

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
    """Resident memory of this process with all threads and libraries; None if unknown, never 0.

    A Jetson's GPU shares this memory, but allocations of its driver are not included.

    Attributes:
        before_bytes: memory before the call.
        peak_bytes: peak during the call.
        after_bytes: memory after the call and a garbage collection. Memory kept by the allocator for reuse is
            included, so this may exceed `before_bytes` without a leak.
    """

    before_bytes: int | None
    peak_bytes: int | None
    after_bytes: int | None

    @property
    def added_bytes(self) -> int | None:
        """Peak minus the memory before: a lower bound, as the call may reuse memory freed earlier."""
        if self.peak_bytes is None or self.before_bytes is None:
            return None
        return self.peak_bytes - self.before_bytes


def peak_memory(run: Callable[[], T], *, proc: Path = _PROC) -> tuple[T, MemoryUse]:
    """Call a function and measure the peak memory of the process during the call.

    Garbage is collected before and after the call, so that earlier garbage is not included. During the call,
    the collector works as usual, as it is part of the measurement.

    The kernel's high-water mark (VmHWM) is reset first. If that is not permitted, as in some sandboxes, the
    peak is known only if the call raises the mark.

    Args:
        run: function to call.
        proc: folder of the process in procfs; tests pass their own.

    Returns:
        The result of `run`, and the memory use.
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
    """Reset the high-water mark; returns whether it dropped to the current value."""
    try:
        (proc / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    mark, now = _status(proc, "VmHWM"), _status(proc, "VmRSS")
    # A kernel may accept the write and do nothing. The values always differ slightly, as reading uses memory.
    return mark is not None and now is not None and mark <= now * 1.05 + (1 << 20)


def resident_bytes(proc: Path = _PROC) -> int | None:
    """Current resident memory of this process; None if unknown."""
    return _status(proc, "VmRSS")


def _status(proc: Path, key: str) -> int | None:
    try:
        text = (proc / "status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{key}:\s*([0-9]{{1,15}}) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
