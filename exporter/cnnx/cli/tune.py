"""The command `cnnx tune`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import BundlePath, check_report, command_of, exit_codes, write_report
from cnnx.options.bundles import TuneOptions
from cnnx.options.shared import JudgedReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(TuneOptions, JudgedReportOptions)
def tune_command(
    ui: Ui,
    bundle: BundlePath,
    options: TuneOptions,
    report: Sequence[str],
    allow_inconclusive: bool,
    strict: bool,
) -> None:
    """Choose on this device where INT8 pays: the fastest placement of Q/DQ that passes the gates.

    Needs a bundle that was exported with --int8 --with-source, and writes a new one. Ctrl-C keeps what was
    measured: the same command resumes.
    """
    import cnnx

    code = exit_codes(allow_inconclusive=allow_inconclusive, strict=strict)
    check_report(report, [bundle])
    result = cnnx.tune(bundle, options, listener=ui.listen)
    written = result.bundle
    ui.show(
        result,
        command="tune",
        report=lambda: (
            write_report(written.path, report, images=options.validation_data) if written else None
        ),
    )
    raise typer.Exit(code(result.verdicts) if strict else code(result.decided))
