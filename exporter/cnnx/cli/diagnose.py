"""`cnnx diagnose`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.cli.options import BundlePath, check_report, command_of, write_report
from cnnx.options.bundles import DiagnoseOptions, DrawingOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(DiagnoseOptions, DrawingOptions)
def diagnose_command(
    ui: Ui, bundle: BundlePath, options: DiagnoseOptions, report: Path | None, picture: Path | None
) -> None:
    """Rank the layers of an INT8 bundle by the damage each does alone, and say what it looks like.

    Where the bundle's images, recipe or checkpoint have moved, options say where they are now.
    """
    import cnnx
    from cnnx.report.damage import check_picture, write_picture
    from cnnx.report.tables.damage import damage_blocks

    check_report(report, [bundle])
    if picture is not None:
        check_picture(picture)
    result = cnnx.diagnose(bundle, options, listener=ui.listen)
    if picture is not None:
        write_picture(result.record.result, picture)
    ui.show(
        result,
        command="diagnose",
        render=lambda verbose: damage_blocks(result.findings.as_dict(), whole=verbose),
        report=lambda: write_report(bundle, report),
    )
