"""The command `cnnx cache`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnx.cli.options import command_of
from cnnx.options.bundles import CacheOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnx.cli.ui import Ui
    from cnnx.report.table import Block


@command_of(CacheOptions)
def cache_command(ui: Ui, options: CacheOptions) -> None:
    """Show the size of the cache (in CNNX_CACHE), and remove old entries."""
    import cnnx
    from cnnx.report.table import Column, Figures, Remark, table_of
    from cnnx.report.words import mib

    found = cnnx.cache(options)

    def render(_: bool) -> Iterator[Block]:
        columns: tuple[Column[tuple[str, int]], ...] = (
            Column("kind", lambda row: row[0]),
            Figures("MiB", lambda row: mib(row[1], 1)),
        )
        rows = [*found.kinds.items(), ("total", sum(found.kinds.values()))]
        yield table_of(str(found.folder), columns, [rows])
        if options.prune_days is not None:
            yield Remark(f"{mib(found.freed_bytes, 1)} MiB removed")

    ui.show(found, command="cache", render=render)
