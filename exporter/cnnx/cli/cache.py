"""`cnnx cache`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnx.cli.options import command_of
from cnnx.options.bundles import CacheOptions

if TYPE_CHECKING:
    from rich.console import Console

    from cnnx.cli.ui import Ui

_MIB = 2**20


@command_of(CacheOptions)
def cache_command(ui: Ui, options: CacheOptions) -> None:
    """Say what the finished steps kept on this machine take (CNNX_CACHE moves them), and remove old ones."""
    import cnnx
    from cnnx.cli.columns import titled

    found = cnnx.cache(options)

    def render(out: Console, _: bool) -> None:
        table = titled(str(found.folder), "kind", "MiB", right=("MiB",))
        for kind, size in found.kinds.items():
            table.add_row(kind, f"{size / _MIB:,.1f}")
        table.add_row("all", f"{sum(found.kinds.values()) / _MIB:,.1f}")
        out.print(table)
        if options.prune_days is not None:
            out.print(f"{found.freed_bytes / _MIB:,.1f} MiB were removed")

    ui.show(found, command="cache", render=render)
