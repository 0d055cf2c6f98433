"""The command `cnnx diagnose`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.cli.options import BundlePath, check_report, command_of, write_report
from cnnx.errors import UsageError
from cnnx.options.bundles import ComparingOptions, DiagnoseOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(DiagnoseOptions, ComparingOptions)
def diagnose_command(
    ui: Ui,
    bundle: BundlePath,
    options: DiagnoseOptions,
    report: Sequence[str],
    target: str | None,
    data: str | None,
    plot: Path | None,
) -> None:
    """Rank the layers of an INT8 bundle by the damage that each does alone, or compare an engine's tensors.

    If the bundle's images, recipe or checkpoint have moved, pass their new paths.
    """
    import cnnx
    from cnnx.report.plot import check_plot, write_plot

    if data is not None and target is None:
        raise UsageError("--data needs --target", hint="add --target tensorrt, rtx or ort, or drop --data")
    check_report(report, [bundle])
    if plot is not None:
        check_plot(plot)
    result = (
        cnnx.diagnose(bundle, options, listener=ui.listen)
        if target is None
        else cnnx.diagnose_tensors(bundle, target, options, data=data, listener=ui.listen)
    )
    if plot is not None:
        from cnnx.pipeline.report.charts import damage_chart, tensor_chart

        chart = damage_chart if target is None else tensor_chart
        write_plot(chart(result.record.result), plot)
    ui.show(
        result,
        command="diagnose",
        report=lambda: write_report(bundle, report),
    )
