"""`cnnx bench`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import check_report, command_of, write_report
from cnnx.options.bundles import BenchOptions
from cnnx.options.shared import ReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

Bundles = Annotated[
    list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles' folders; several take turns.")
]


@command_of(BenchOptions, ReportOptions)
def bench_command(ui: Ui, bundles: Bundles, options: BenchOptions, report: Path | None) -> None:
    """Measure latency and memory of what runs here, energy too if asked; the samples go to its runs/.

    Ends with 6 where a measurement on a GPU is invalid.
    """
    import cnnx
    from cnnx.cli.shown import bench_blocks

    check_report(report, bundles)
    result = cnnx.bench(bundles, options, listener=ui.listen)
    ui.show(
        result,
        command="bench",
        render=lambda verbose: bench_blocks(result, verbose=verbose),
        report=lambda: write_report(bundles, report),
    )
    raise typer.Exit(result.exit_code)
