"""`cnnx validate`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnx.cli.options import (
    BundlePath,
    Debug,
    Engine,
    Json,
    Report,
    Target,
    Trust,
    Verbose,
    check_report,
    write_report,
)


def validate_command(
    bundle: BundlePath,
    target: Target = "auto",
    engine: Engine = None,
    validation_data: Annotated[
        str | None,
        typer.Option(help="Judge agreement anew on these images: a built-in set, a folder, or a list."),
    ] = None,
    validation_images: Annotated[
        int | None, typer.Option(help="Maximum number of them; by default as many as the gates need.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Label file, one `name label` per line (class index or WordNet ID)."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The recipe or ONNX file that the bundle was made from, if it is yours."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The checkpoint that the bundle was made from, if it is yours.")
    ] = None,
    trust_recipe: Trust = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Run a bundle's self-test here, or judge it anew on your images; the outcome is kept in its runs/."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
        import cnnx
        from cnnx.cli.shown import validate_blocks

        check_report(report, [bundle])
        result = cnnx.validate(
            bundle,
            target=target,
            engine=engine,
            validation_data=validation_data,
            validation_images=validation_images,
            labels=labels,
            model=model,
            weights=weights,
            trust_recipe=trust_recipe,
            listener=ui.listen,
        )
        ui.show(
            result,
            command="validate",
            render=lambda verbose: validate_blocks(result, verbose=verbose),
            report=lambda: write_report(bundle, report),
        )
        raise typer.Exit(result.verdict.exit_code)
