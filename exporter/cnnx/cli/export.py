"""The command `cnnx export`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import Model, check_report, command_of, exit_codes, write_report
from cnnx.options.networks import ExportOptions
from cnnx.options.shared import JudgedReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(ExportOptions, JudgedReportOptions)
def export_command(
    ui: Ui,
    model: Model,
    options: ExportOptions,
    report: Sequence[str],
    allow_inconclusive: bool,
    strict: bool,
) -> None:
    """Turn a network into a bundle: export, quantize, build, validate, measure."""
    import cnnx

    code = exit_codes(allow_inconclusive=allow_inconclusive, strict=strict)
    check_report(report)
    result = cnnx.export(model, options, listener=ui.listen)
    ui.show(
        result,
        command="export",
        report=lambda: write_report(result.bundle.path, report),
    )
    # Without --strict an export that cannot be judged, such as one of stand-in weights, is done.
    raise typer.Exit(code(result.verdicts) if strict else code(result.decided))
