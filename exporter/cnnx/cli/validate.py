"""The command `cnnx validate`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import BundlePath, check_report, command_of, exit_codes, write_report
from cnnx.options.bundles import ValidateOptions
from cnnx.options.shared import JudgedReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui
    from cnnx.pipeline.validate import ValidateResult


@command_of(ValidateOptions, JudgedReportOptions)
def validate_command(
    ui: Ui,
    bundle: BundlePath,
    options: ValidateOptions,
    report: Sequence[str],
    allow_inconclusive: bool,
    strict: bool,
) -> None:
    """Run a bundle's self-test here; with --validation-data, measure agreement on those images.

    The result is stored in the bundle's runs/. With --from, a record is judged again and nothing runs.
    """
    import cnnx

    code = exit_codes(allow_inconclusive=allow_inconclusive, strict=strict)
    check_report(report, [bundle])
    result = cnnx.validate(bundle, options, listener=ui.listen)
    ui.show(
        result,
        command="validate",
        report=lambda: _write(result, bundle, report, images=options.validation_data),
    )
    raise typer.Exit(code(result.verdicts))


def _write(result: ValidateResult, bundle: Path, report: Sequence[str], *, images: str | Path | None) -> None:
    """Write the bundle's records, or the gates of records that were judged again."""
    if not report or result.again is None:
        write_report(bundle, report, images=images)
        return
    from cnnx.pipeline.judge.report import write_judged_again

    for path in report:
        write_judged_again(result.again, Path(path))
