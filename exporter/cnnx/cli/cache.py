"""`cnnx cache`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import Debug, Json

if TYPE_CHECKING:
    from rich.console import Console

_MIB = 2**20


def cache_command(
    prune: Annotated[
        float | None,
        typer.Option(help="Remove what was not used for so many days; downloaded weights stay."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what the finished steps kept on this machine take (CNNX_CACHE moves them), and remove old ones."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, debug=debug) as ui:
        import cnnx
        from cnnx.cli.columns import titled

        found = cnnx.cache(prune_days=prune)

        def render(out: Console, _: bool) -> None:
            table = titled(str(found.folder), "kind", "MiB", right=("MiB",))
            for kind, size in found.kinds.items():
                table.add_row(kind, f"{size / _MIB:,.1f}")
            table.add_row("all", f"{sum(found.kinds.values()) / _MIB:,.1f}")
            out.print(table)
            if prune is not None:
                out.print(f"{found.freed_bytes / _MIB:,.1f} MiB were removed")

        ui.show(found, command="cache", render=render)
