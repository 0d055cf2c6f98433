"""The command `cnnx compare`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import check_report, command_of, exit_codes
from cnnx.options.bundles import CompareOptions
from cnnx.options.shared import JudgedReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

_WHAT = "a bundle, a record in runs/, a survey's folder, or a report in JSON"
Base = Annotated[Path, typer.Argument(metavar="BASE", help=f"What to compare with: {_WHAT}.")]
New = Annotated[Path, typer.Argument(metavar="NEW", help=f"What to compare: {_WHAT}.")]


@command_of(CompareOptions, JudgedReportOptions)
def compare_command(
    ui: Ui,
    base: Base,
    new: New,
    options: CompareOptions,
    report: Sequence[str],
    allow_inconclusive: bool,
    strict: bool,
) -> None:
    """Compare agreement, accuracy, latency, memory, energy and size with a base; judge gates.

    Without gates the exit code is 0, whatever changed.
    """
    import cnnx

    code = exit_codes(allow_inconclusive=allow_inconclusive, strict=strict)
    check_report(report)
    result = cnnx.compare(base, new, options)

    def write() -> None:
        from cnnx.pipeline.compare.report import write_comparison

        for path in report:
            write_comparison(result, path)

    ui.show(result, command="compare", report=write)
    raise typer.Exit(code(result.verdicts))
