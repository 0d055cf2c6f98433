"""`cnnx cache`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import Debug, Json

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        from cnnx.report.table import Block, Column, Figures, Remark, table_of
        from cnnx.report.words import mib

        found = cnnx.cache(prune_days=prune)

        def render(_: bool) -> Iterator[Block]:
            columns: tuple[Column[tuple[str, int]], ...] = (
                Column("kind", lambda row: row[0]),
                Figures("MiB", lambda row: mib(row[1], 1)),
            )
            rows = [*found.kinds.items(), ("all", sum(found.kinds.values()))]
            yield table_of(str(found.folder), columns, [rows])
            if prune is not None:
                yield Remark(f"{mib(found.freed_bytes, 1)} MiB were removed")

        ui.show(found, command="cache", render=render)
