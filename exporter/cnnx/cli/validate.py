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
        report=lambda: _write(result, bundle, report),
    )
    raise typer.Exit(code(result.verdicts))


def _write(result: ValidateResult, bundle: Path, report: Sequence[str]) -> None:
    """Write the bundle's records, or the gates of records that were judged again."""
    if not report or result.again is None:
        write_report(bundle, report)
        return
    from cnnx.pipeline.plain import plain
    from cnnx.report.files import document_of_tables, gate_rows, write_document
    from cnnx.report.table import Facts

    blocks = [block for block in result.blocks() if not isinstance(block, Facts)]
    data = plain(result.again)
    document = document_of_tables(blocks, data=data, rows=gate_rows(data["gates"]))
    for path in map(Path, report):
        write_document(document, path)
