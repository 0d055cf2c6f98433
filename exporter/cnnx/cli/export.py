"""The command `cnnx export`. Heavy imports happen when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import Model, check_report, command_of, write_report
from cnnx.options.networks import ExportOptions
from cnnx.options.shared import ReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(ExportOptions, ReportOptions)
def export_command(ui: Ui, model: Model, options: ExportOptions, report: Path | None) -> None:
    """Turn a network into a bundle: export, quantize, build, validate, measure."""
    import cnnx

    check_report(report)
    result = cnnx.export(model, options, listener=ui.listen)
    ui.show(
        result,
        command="export",
        report=lambda: write_report(result.bundle.path, report),
    )
    raise typer.Exit(result.exit_code)
