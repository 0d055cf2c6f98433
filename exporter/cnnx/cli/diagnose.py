"""`cnnx diagnose`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnx.cli.options import BundlePath, Debug, Json, Report, Trust, Verbose, check_report, write_report


def diagnose_command(
    bundle: BundlePath,
    images: Annotated[int, typer.Option(help="Pictures that layers are tried on, at most.")] = 512,
    model: Annotated[
        Path | None, typer.Option(help="The recipe or ONNX file it was made from, where that does not ship.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The checkpoint, where it was made with one of yours.")
    ] = None,
    calibration_data: Annotated[
        str | None, typer.Option(help="Where the calibration pictures are now, should they have moved.")
    ] = None,
    validation_data: Annotated[
        str | None, typer.Option(help="Likewise, for the pictures that judge.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the damage along the network: .svg or .png.")
    ] = None,
    trust_recipe: Trust = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Rank the layers of an INT8 bundle by the damage each does alone, and say what it looks like."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
        import cnnx
        from cnnx.report.damage import check_picture, write_picture
        from cnnx.report.tables.damage import damage_blocks

        check_report(report, [bundle])
        if picture is not None:
            check_picture(picture)
        result = cnnx.diagnose(
            bundle,
            images=images,
            model=model,
            weights=weights,
            calibration_data=calibration_data,
            validation_data=validation_data,
            trust_recipe=trust_recipe,
            listener=ui.listen,
        )
        if picture is not None:
            write_picture(result.record.result, picture)
        ui.show(
            result,
            command="diagnose",
            render=lambda verbose: damage_blocks(result.findings.as_dict(), whole=verbose),
            report=lambda: write_report(bundle, report),
        )
