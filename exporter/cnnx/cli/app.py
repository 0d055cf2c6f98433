"""The commands and their options. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.bench import bench_command
from cnnx.cli.build import build_command
from cnnx.cli.cache import cache_command
from cnnx.cli.options import (
    BundlePath,
    CalibrationData,
    CalibrationImages,
    Debug,
    Engine,
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
from cnnx.cli.survey import survey_command

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="cnnx",
    help="Classic CNN classifiers from PyTorch to validated FP16 and INT8 engines on edge GPUs.",
    epilog="Exit codes: 0 done · 1 a gate failed · 2 usage · 3 an input was refused · "
    "4 the environment lacks something · 5 a build failed · 6 not decided · "
    "70 a fault of cnnx itself · 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Classic CNN classifiers from PyTorch to validated FP16 and INT8 engines on edge GPUs."""
    if version:
        from importlib import metadata

        typer.echo(f"cnnx {metadata.version('cnnx')}")
        raise typer.Exit


@app.command("list")
def list_command(
    pattern: Annotated[
        str,
        typer.Argument(metavar="[PATTERN]", help="Part of a name, or a shell pattern for the whole of it."),
    ] = "*",
    family: Annotated[str | None, typer.Option(help="Only this family, such as resnet.")] = None,
    side: Annotated[
        int | None, typer.Option("--input", min=1, help="Only inputs of so many pixels across.")
    ] = None,
    max_parameters: Annotated[
        float | None, typer.Option(min=0, help="At most so many parameters, in millions.")
    ] = None,
    max_multiply_adds: Annotated[
        float | None,
        typer.Option(min=0, help="At most so many multiply-adds a picture, in thousand millions."),
    ] = None,
    min_top1: Annotated[
        float | None, typer.Option(min=0, max=100, help="At least this published top-1 accuracy, in percent.")
    ] = None,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Only networks whose trained weights can be had.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the networks that ship with a recipe; all filters given must hold."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, debug=debug) as ui:
        import cnnx
        from cnnx.cli.tables import print_networks

        networks = cnnx.list_networks(
            pattern,
            family=family,
            side=side,
            max_parameters=None if max_parameters is None else max_parameters * 1e6,
            max_multiply_adds=None if max_multiply_adds is None else max_multiply_adds * 1e9,
            min_top1=min_top1,
            with_weights=with_weights,
        )
        ui.show(networks, command="list", render=lambda out, _: print_networks(out, networks))


@app.command()
def show(
    model: Model,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown, to be pasted into a document.")
    ] = False,
    trust_recipe: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a network layer by layer: output shape, activation memory, parameters, multiply-adds."""
    from cnnx.cli.ui import command
    from cnnx.errors import UsageError

    with command(as_json=as_json, debug=debug) as ui:
        if markdown and as_json:
            raise UsageError("--markdown and --json exclude each other", mend="give one of them")
        import cnnx
        from cnnx.cli.tables import architecture_markdown, print_architecture

        architecture = cnnx.show(model, trust_recipe=trust_recipe)

        def render(out: Console, _: bool) -> None:
            if markdown:
                out.out(architecture_markdown(architecture))
            else:
                print_architecture(out, architecture)

        ui.show(architecture, command="show", render=render)


@app.command()
def export(
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
            listener=ui.listen,
        )
        ui.show(
            result,
            command="export",
            render=lambda out, verbose: print_export(out, result, verbose=verbose),
            report=lambda: write_report(result.bundle.path, report),
        )
        raise typer.Exit(result.exit_code)


@app.command()
def calibrate(
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


app.command("build")(build_command)


@app.command()
def validate(
    bundle: BundlePath,
    target: Target = "auto",
    engine: Engine = None,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Judge a bundle on its self-test, and keep the verdict in its runs/."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
        import cnnx
        from cnnx.cli.tables import print_validation

        check_report(report, [bundle])
        result = cnnx.validate(bundle, target=target, engine=engine, listener=ui.listen)
        ui.show(
            result,
            command="validate",
            render=lambda out, verbose: print_validation(
                out, result.validation, result.bundle.labels, verbose=verbose
            ),
            report=lambda: write_report(bundle, report),
        )
        raise typer.Exit(result.validation.verdict.exit_code)


app.command("bench")(bench_command)
app.command("survey")(survey_command)


@app.command("inspect")
def inspect_command(
    bundle: BundlePath, as_json: Json = False, verbose: Verbose = False, debug: Debug = False
) -> None:
    """Check every hash of a bundle and show each layer's precision with its reason."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
        import cnnx
        from cnnx.cli.tables import print_inspection

        result = cnnx.inspect(bundle)
        ui.show(
            result,
            command="inspect",
            render=lambda out, verbose: print_inspection(out, result, verbose=verbose),
        )


@app.command()
def diagnose(
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
        from cnnx.cli.diagnosis import print_findings
        from cnnx.report.damage import check_picture, write_picture

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
            render=lambda out, verbose: print_findings(out, result, verbose=verbose),
            report=lambda: write_report(bundle, report),
        )


@app.command()
def doctor(
    proof: Annotated[
        Path | None,
        typer.Option(
            help="Build, validate and measure three networks, with energy where a sensor tells it, and write "
            "records to this .tar.gz."
        ),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="With --proof: finished bundles to take, which needs no PyTorch; several times."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="With --proof: where its work lies, so that a stopped one goes on.")
    ] = None,
    no_power: Annotated[
        bool, typer.Option("--no-power", help="With --proof: leave energy out, which takes most of its time.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, what cnnx can do on it, and what each missing thing would take."""
    from cnnx.cli.ui import command
    from cnnx.errors import UsageError

    with command(as_json=as_json, debug=debug) as ui:
        import cnnx
        from cnnx.cli.doctor import print_diagnosis

        if proof is None:
            if bundle or folder or no_power:
                what = "--bundle, --folder and --no-power are for a proof"
                raise UsageError(what, mend="give --proof proof.tar.gz")
            diagnosis = cnnx.doctor()
            ui.show(diagnosis, command="doctor", render=lambda out, _: print_diagnosis(out, diagnosis))
            return
        from cnnx.cli.survey import print_rows

        plan = cnnx.SurveyPlan() if no_power else None
        result = cnnx.prove(proof, bundles=bundle or (), plan=plan, folder=folder, listener=ui.listen)

        def render(out: Console, _: bool) -> None:
            print_diagnosis(out, result.diagnosis)
            print_rows(out, result.rows)
            nothing = "nothing was measured, for the reasons above"
            how = nothing if result.exit_code else "ready to be sent back"
            out.print(f"records: {result.archive}, {how}", soft_wrap=True)

        ui.show(result, command="doctor", render=render)
        raise typer.Exit(result.exit_code)


app.command("cache")(cache_command)
