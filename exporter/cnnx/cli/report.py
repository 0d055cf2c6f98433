"""The command `cnnx report`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import check_report, command_of
from cnnx.options.bundles import FileOptions, ThumbnailOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Bundles, records in runs/, survey folders, or reports in JSON."),
]


@command_of(ThumbnailOptions, FileOptions)
def report_command(ui: Ui, runs: Runs, options: ThumbnailOptions, out: Sequence[str]) -> None:
    """Write a report of what was recorded: a page to read, or a file for CI."""
    import cnnx

    files = out or ("report.html",)
    check_report(files)
    ui.show(cnnx.write_report(runs, files, options), command="report")
