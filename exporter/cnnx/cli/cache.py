"""The command `cnnx cache`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnx.cli.options import command_of
from cnnx.options.bundles import CacheOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(CacheOptions)
def cache_command(ui: Ui, options: CacheOptions) -> None:
    """Show the size of the cache (in CNNX_CACHE), and remove old entries."""
    import cnnx

    ui.show(cnnx.cache(options), command="cache")
