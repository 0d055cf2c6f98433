"""`cnnx calibrate`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnx.cli.options import Model, command_of
from cnnx.options import CalibrateOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(CalibrateOptions)
def calibrate_command(ui: Ui, model: Model, options: CalibrateOptions) -> None:
    """Show the ranges that INT8 would get, by every method; with folds, whether the images are enough."""
    import cnnx
    from cnnx.pipeline.plain import plain
    from cnnx.report.tables.calibration import calibration_blocks

    result = cnnx.calibrate(model, options, listener=ui.listen)
    ui.show(
        result,
        command="calibrate",
        render=lambda verbose: calibration_blocks(plain(result), whole=verbose),
    )
