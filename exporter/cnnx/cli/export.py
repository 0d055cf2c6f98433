"""`cnnx export`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnx.cli.options import (
    CalibrationData,
    CalibrationImages,
    Debug,
    Equalize,
    Json,
    Model,
    Report,
    Scales,
    Sm,
    Target,
    Trust,
    Verbose,
    Weights,
    batch_of,
    check_report,
    precision_of,
    write_report,
)


def export_command(
    model: Model,
    fp32: Annotated[bool, typer.Option("--fp32", help="Keep single precision.")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Type the graph FP16 (default of most recipes).")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize to INT8, with FP16 elsewhere.")] = False,
    target: Target = "auto",
    sm: Sm = None,
    weights: Weights = "pretrained",
    out: Annotated[
        Path | None, typer.Option(help="The bundle's folder; <name>-<precision> by default.")
    ] = None,
    calibration_data: CalibrationData = None,
    calibration_images: CalibrationImages = None,
    validation_data: Annotated[
        str | None, typer.Option(help="Likewise, for the pictures that judge.")
    ] = None,
    validation_images: Annotated[int | None, typer.Option(help="How many of them at most.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Lines of a validation picture's name and its class index or WordNet id."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How ranges are chosen: entropy, max, mse, percentile-99.9, -99.99, -99.999, or auto."
        ),
    ] = None,
    equalize: Equalize = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Put INT8 layers back into FP16 until the gates of agreement would pass."
        ),
    ] = False,
    repair_trials: Annotated[
        int | None, typer.Option(help="How many networks that search may try (200).")
    ] = None,
    scales: Annotated[
        Scales, typer.Option(help="Type of the scales; fp32 keeps all but INT8 in FP32.")
    ] = Scales.FP16,
    batch: Annotated[str, typer.Option(help="Batch size, or a range such as 1..8.")] = "1",
    trust_recipe: Trust = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Put the bundle into a folder that holds other files; none of them is lost."
        ),
    ] = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Take a network to a bundle: export, calibrate, quantize, lint, build, validate, measure."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
        import cnnx
        from cnnx.cli.tables import print_export

        check_report(report)
        result = cnnx.export(
            model,
            precision=precision_of(fp32=fp32, fp16=fp16, int8=int8),
            target=target,
            sm=sm or (),
            weights=weights,
            out=out,
            calibration_data=calibration_data,
            calibration_images=calibration_images,
            validation_data=validation_data,
            validation_images=validation_images,
            labels=labels,
            method=method,
            equalize=equalize,
            repair=repair,
            repair_trials=repair_trials,
            scales=scales.value,
            batch=batch_of(batch),
            trust_recipe=trust_recipe,
            force=force,
            listener=ui.listen,
        )
        ui.show(
            result,
            command="export",
            render=lambda out, verbose: print_export(out, result, verbose=verbose),
            report=lambda: write_report(result.bundle.path, report),
        )
        raise typer.Exit(result.exit_code)
