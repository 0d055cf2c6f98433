"""`cnnx validate`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import BundlePath, check_report, command_of, write_report
from cnnx.options.bundles import ValidateOptions
from cnnx.options.shared import ReportOptions

if TYPE_CHECKING:
    from rich.console import Console

    from cnnx.cli.ui import Ui


@command_of(ValidateOptions, ReportOptions)
def validate_command(ui: Ui, bundle: BundlePath, options: ValidateOptions, report: Path | None) -> None:
    """Run a bundle's self-test here; with --validation-data, judge its agreement anew on those images.

    The outcome is kept in its runs/.
    """
    import cnnx
    from cnnx.cli.tables import print_self_test, print_validation

    check_report(report, [bundle])
    result = cnnx.validate(bundle, options, listener=ui.listen)

    def render(out: Console, verbose: bool) -> None:
        if result.self_test:
            print_self_test(out, result.self_test)
        if result.validation:
            print_validation(out, result.validation, result.bundle.labels, verbose=verbose)

    ui.show(result, command="validate", render=render, report=lambda: write_report(bundle, report))
    raise typer.Exit(result.verdict.exit_code)
