"""`cnnx calibrate`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnx.cli.options import (
    CalibrationData,
    CalibrationImages,
    Debug,
    Equalize,
    Json,
    Model,
    Trust,
    Verbose,
    Weights,
)


def calibrate_command(
    model: Model,
    weights: Weights = "pretrained",
    calibration_data: CalibrationData = None,
    calibration_images: CalibrationImages = None,
    method: Annotated[
        str | None, typer.Option(help="Show only this method's ranges, or auto; folds are compared by it.")
    ] = None,
    equalize: Equalize = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Deal the pictures out into so many sets and say how far ranges and error move."),
    ] = None,
    trust_recipe: Trust = False,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Show the ranges that INT8 would get, by every method; with folds, whether the pictures are enough."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
        import cnnx
        from cnnx.cli.calibration_tables import print_calibration

        result = cnnx.calibrate(
            model,
            weights=weights,
            calibration_data=calibration_data,
            calibration_images=calibration_images,
            method=method,
            equalize=equalize,
            folds=folds,
            trust_recipe=trust_recipe,
            listener=ui.listen,
        )
        ui.show(
            result,
            command="calibrate",
            render=lambda out, verbose: print_calibration(out, result, verbose=verbose),
        )
