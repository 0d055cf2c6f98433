"""Keeps TensorRT's timing caches in files, one for each GPU and release.

Calls follow NVIDIA's Python API reference (IBuilderConfig.create_timing_cache, set_timing_cache;
ITimingCache.serialize).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from cnnx.store.files import atomic_file


class TimingCache:
    """A timing cache on disk, set on a builder configuration and saved after the build.

    Args:
        folder: folder of the cache files; created when the cache is saved.
        device: name of the GPU, or of the Jetson.
        version: version of TensorRT.
    """

    def __init__(self, folder: Path, *, device: str, version: str) -> None:
        self.file = folder / f"{slug(device)}-{slug(version)}.timing"

    def give_to(self, config: Any) -> str | None:
        """Set the cache on a configuration; without a file, an empty cache.

        Returns:
            A remark if the file could not be used and an empty cache replaced it; else None.
        """
        data = self.file.read_bytes() if self.file.is_file() else b""
        if _give(config, data):
            return None
        _give(config, b"")
        return (
            f"replaced the timing cache {self.file.name}: it was corrupt, or from a different GPU or release"
        )

    def keep(self, config: Any) -> str:
        """Save the cache after a build.

        Returns:
            SHA-256 of the cache, in hex; empty if the builder has no cache.

        Raises:
            WriteFailed: the file cannot be written.
        """
        cache = config.get_timing_cache()
        if cache is None:
            return ""
        data = bytes(cache.serialize())
        with atomic_file(self.file) as draft:
            draft.write_bytes(data)
        return hashlib.sha256(data).hexdigest()


def slug(text: str) -> str:
    """Text reduced to lowercase letters, digits, dots and dashes, for names of files and folders."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _give(config: Any, data: bytes) -> bool:
    """Whether TensorRT accepts the cache; it checks that device and release match."""
    try:
        cache = config.create_timing_cache(data)
    except RuntimeError:
        return False
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))
