"""`cache`: what the finished steps kept on this machine take, and giving back what is no longer used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.bundles import CacheOptions
from cnnx.store.cache import Store

_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class CacheUse:
    """The cache, after anything was removed.

    Attributes:
        folder: where it lies.
        kinds: bytes by kind of step.
        freed_bytes: that were removed just now.
    """

    folder: Path
    kinds: Mapping[str, int]
    freed_bytes: int


@takes(CacheOptions)
def cache(options: CacheOptions) -> CacheUse:
    """Say what the cache takes; remove steps first that were not used for long.

    Whatever is removed is made again when it is needed. Downloaded weights stay. What cnnx cannot prove to
    have written is neither counted nor removed, wherever CNNX_CACHE points.

    Args:
        options: as an object; each can be given by keyword, too.

    Raises:
        UsageError: a number of days below 0.
    """
    prune_days = options.prune_days
    if prune_days is not None and not prune_days >= 0:
        raise UsageError(f"{prune_days:g} days is no age", hint="--prune 30")
    store = Store()
    freed = 0 if prune_days is None else store.prune(older_than_seconds=prune_days * _DAY_S)
    return CacheUse(store.root, store.sizes(), freed)
