"""Measures the memory of this process. Imports nothing from cnnx, as other tools use it too."""

from __future__ import annotations

from pathlib import Path


def memory(key: str) -> int:
    """VmRSS or VmHWM in bytes. The peak from getrusage would include that of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
