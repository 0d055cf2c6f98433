"""The command `cnnx bench`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import check_report, command_of, write_report
from cnnx.options.bundles import BenchOptions
from cnnx.options.shared import ReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

Bundles = Annotated[
    list[Path], typer.Argument(metavar="BUNDLE...", help="Bundle folders; several are measured in turns.")
]


@command_of(BenchOptions, ReportOptions)
def bench_command(ui: Ui, bundles: Bundles, options: BenchOptions, report: Sequence[str]) -> None:
    """Measure latency and memory; with options also streams, energy and a soak.

    Samples are stored in the bundle's runs/. The exit code is 6 if a GPU measurement is invalid. Ctrl-C ends
    streams and soaks early; what they measured is kept.
    """
    import cnnx

    check_report(report, bundles)
    result = cnnx.bench(bundles, options, listener=ui.listen)
    ui.show(
        result,
        command="bench",
        report=lambda: write_report(bundles, report),
    )
    raise typer.Exit(result.exit_code)
