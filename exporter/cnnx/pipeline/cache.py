"""`cache`: reports the size of the cache of finished steps, and removes what is no longer used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.bundles import CacheOptions
from cnnx.report.result import Result
from cnnx.report.table import Block, Column, Figures, Remark, table_of
from cnnx.report.words import mib
from cnnx.store.cache import Store

_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True, repr=False)
class CacheUse(Result):
    """The size of the cache, after any removal.

    Attributes:
        folder: the cache folder.
        kinds: bytes by kind of step.
        freed_bytes: bytes removed just now; None: nothing was to be removed.
        notes: why more was kept than was asked for.
    """

    folder: Path
    kinds: Mapping[str, int]
    freed_bytes: int | None
    notes: tuple[str, ...] = ()

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        columns: tuple[Column[tuple[str, int]], ...] = (
            Column("kind", lambda row: row[0]),
            Figures("MiB", lambda row: mib(row[1], 1)),
        )
        rows = [*self.kinds.items(), ("total", sum(self.kinds.values()))]
        yield table_of(str(self.folder), columns, [rows])
        if self.freed_bytes is not None:
            yield Remark(f"{mib(self.freed_bytes, 1)} MiB removed")
        yield from (Remark(note, "note", "open") for note in self.notes)


@takes(CacheOptions)
def cache(options: CacheOptions) -> CacheUse:
    """Report the size of the cache, after removing steps that have not been used recently.

    Removed steps are run again when needed. Downloaded weights are kept. Files that cnnx cannot prove to have
    written are neither counted nor removed, wherever CNNX_CACHE points.

    Args:
        options: options as an object; each can also be given by keyword.

    Raises:
        UsageError: the number of days is negative.
        WriteFailed: an entry cannot be removed.

    Examples:
        >>> cnnx.cache().freed_bytes is None
        True
    """
    prune_days = options.prune_days
    if prune_days is not None and not prune_days >= 0:
        raise UsageError(
            f"invalid --prune {prune_days:g}: expected 0 days or more", hint="give --prune 30, for example"
        )
    store, notes = Store(), list[str]()
    freed = None
    if prune_days is not None:
        freed = store.prune(older_than_seconds=prune_days * _DAY_S, warn=notes.append)
    return CacheUse(store.root, store.sizes(), freed, tuple(notes))
