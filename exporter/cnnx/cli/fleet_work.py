"""The commands of `cnnx fleet` that give work to nodes. Heavy imports happen when they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import BundlePath, Model, check_report, command_of, exit_codes, write_report
from cnnx.cli.survey import Models
from cnnx.options.fleet import FleetCalibrateOptions, FleetSurveyOptions, FleetValidateOptions
from cnnx.options.shared import JudgedReportOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(FleetSurveyOptions)
def survey_command(ui: Ui, models: Models, options: FleetSurveyOptions) -> None:
    """Export networks once, and measure them in every precision and batch size on many devices."""
    import cnnx

    result = cnnx.fleet_survey(models.split(","), options, listener=ui.listen)
    ui.show(result, command="fleet survey")
    raise typer.Exit(result.exit_code)


@command_of(FleetValidateOptions, JudgedReportOptions)
def validate_command(
    ui: Ui,
    bundle: BundlePath,
    options: FleetValidateOptions,
    report: Sequence[str],
    allow_inconclusive: bool,
    strict: bool,
) -> None:
    """Measure a bundle's agreement on images that are sharded over nodes: one exact verdict.

    The result is stored in the bundle's runs/, with the nodes and how far they differ.
    """
    import cnnx

    code = exit_codes(allow_inconclusive=allow_inconclusive, strict=strict)
    check_report(report, [bundle])
    result = cnnx.fleet_validate(bundle, options, listener=ui.listen)
    ui.show(
        result,
        command="fleet validate",
        report=lambda: write_report(bundle, report, images=options.validation_data),
    )
    raise typer.Exit(code(result.verdicts))


@command_of(FleetCalibrateOptions)
def calibrate_command(ui: Ui, model: Model, options: FleetCalibrateOptions) -> None:
    """Compare INT8 ranges from images that are sharded over nodes; later exports here reuse them."""
    import cnnx

    result = cnnx.fleet_calibrate(model, options, listener=ui.listen)
    ui.show(result, command="fleet calibrate")
    raise typer.Exit(result.exit_code)
