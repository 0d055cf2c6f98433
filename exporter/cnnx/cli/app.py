"""The command line: short commands here, longer ones in files of their own.

Nothing heavy is imported before one runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cnnx.cli.bench import bench_command
from cnnx.cli.build import build_command
from cnnx.cli.cache import cache_command
from cnnx.cli.calibrate import calibrate_command
from cnnx.cli.diagnose import diagnose_command
from cnnx.cli.doctor import doctor_command
from cnnx.cli.export import export_command
from cnnx.cli.options import (
    BundlePath,
    Debug,
    Json,
    Model,
    Trust,
    Verbose,
)
from cnnx.cli.survey import survey_command
from cnnx.cli.validate import validate_command

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
        from cnnx.pipeline.plain import plain
        from cnnx.report.tables.networks import network_blocks

        networks = cnnx.list_networks(
            pattern,
            family=family,
            side=side,
            max_parameters=None if max_parameters is None else max_parameters * 1e6,
            max_multiply_adds=None if max_multiply_adds is None else max_multiply_adds * 1e9,
            min_top1=min_top1,
            with_weights=with_weights,
        )
        ui.show(networks, command="list", render=lambda _: network_blocks(plain(networks)))


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
        from cnnx.report.markdown import markdown as as_markdown
        from cnnx.report.tables.networks import architecture_blocks

        architecture = cnnx.show(model, trust_recipe=trust_recipe)
        blocks = architecture_blocks(architecture.as_dict())
        if markdown:
            typer.echo(as_markdown(blocks, title="**{}**"), nl=False)
        else:
            ui.show(architecture, command="show", render=lambda _: blocks)


app.command("export")(export_command)
app.command("calibrate")(calibrate_command)
app.command("build")(build_command)


app.command("validate")(validate_command)
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
        from cnnx.cli.shown import inspection_blocks

        result = cnnx.inspect(bundle)
        ui.show(result, command="inspect", render=lambda verbose: inspection_blocks(result, verbose=verbose))


app.command("diagnose")(diagnose_command)
app.command("doctor")(doctor_command)
app.command("cache")(cache_command)
