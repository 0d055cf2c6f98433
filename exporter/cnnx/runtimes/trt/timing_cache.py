"""TensorRT's timing cache as a file: one for each GPU and release, never used for another.

Calls as in NVIDIA's Python API reference (IBuilderConfig.create_timing_cache, set_timing_cache;
ITimingCache.serialize).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from cnnx.store.files import atomic_file


class TimingCache:
    """A cache on disk, given to a builder configuration and taken back after the build.

    Args:
        folder: where the files lie; made when the cache is kept.
        device: the GPU, or the Jetson that it is in.
        version: of TensorRT.
    """

    def __init__(self, folder: Path, *, device: str, version: str) -> None:
        self.file = folder / f"{slug(device)}-{slug(version)}.timing"

    def give_to(self, config: Any) -> str | None:
        """Let a configuration use the cache; an absent one starts empty.

        Returns:
            A remark where the file was corrupt or foreign and an empty cache took its place.
        """
        data = self.file.read_bytes() if self.file.is_file() else b""
        if _give(config, data):
            return None
        _give(config, b"")
        return (
            f"the timing cache {self.file.name} was corrupt, or of another GPU or release: it is started anew"
        )

    def keep(self, config: Any) -> str:
        """Write what the cache holds after a build.

        Returns:
            Its SHA-256, in hex; empty where the builder holds none.

        Raises:
            WriteFailed: it cannot be written.
        """
        cache = config.get_timing_cache()
        if cache is None:
            return ""
        data = bytes(cache.serialize())
        with atomic_file(self.file) as draft:
            draft.write_bytes(data)
        return hashlib.sha256(data).hexdigest()


def slug(text: str) -> str:
    """A text in letters, digits, dots and dashes, for names of files and folders."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _give(config: Any, data: bytes) -> bool:
    """Whether TensorRT takes the cache: it checks that device and release are the same."""
    try:
        cache = config.create_timing_cache(data)
    except RuntimeError:
        return False
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))
