"""The Typer application: short commands, and registration of the longer ones.

Heavy imports happen inside commands, so that `cnnx --help` starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.bench import bench_command
from cnnx.cli.bom import bom_command
from cnnx.cli.cache import cache_command
from cnnx.cli.classify import classify_command
from cnnx.cli.compare import compare_command
from cnnx.cli.diagnose import diagnose_command
from cnnx.cli.doctor import doctor_command
from cnnx.cli.export import export_command
from cnnx.cli.fleet_group import fleet_group
from cnnx.cli.init import init_command
from cnnx.cli.options import BundlePath, Model, command_of
from cnnx.cli.package import package_command
from cnnx.cli.preflight import preflight_command
from cnnx.cli.report import report_command
from cnnx.cli.sign import sign_command
from cnnx.cli.survey import survey_command
from cnnx.cli.tune import tune_command
from cnnx.cli.validate import validate_command
from cnnx.cli.verify import verify_command
from cnnx.errors import UsageError
from cnnx.options.bundles import EngineOptions, InspectOptions
from cnnx.options.networks import CalibrateOptions, ListOptions, MarkdownOptions, ShowOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

app = typer.Typer(
    name="cnnx",
    help="Classic CNN classifiers from PyTorch to validated FP16 and INT8 engines on edge GPUs.",
    epilog="Exit codes: 0 success · 1 a gate failed · 2 usage error · 3 invalid input · "
    "4 missing requirement · 5 a build failed · 6 inconclusive · "
    "70 internal error · 130 interrupted (Ctrl-C) · 143 terminated.",
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
@command_of(ListOptions)
def list_command(
    ui: Ui,
    options: ListOptions,
    pattern: Annotated[
        str,
        typer.Argument(metavar="[PATTERN]", help="Part of a name, or a shell pattern."),
    ] = "*",
) -> None:
    """List the networks that ship with a recipe. Filters combine."""
    import cnnx

    ui.show(cnnx.list_networks(pattern, options=options), command="list")


@app.command("show")
@command_of(ShowOptions, MarkdownOptions)
def show_command(ui: Ui, model: Model, options: ShowOptions, markdown: bool) -> None:
    """Show a network layer by layer: output shape, memory, parameters, MACs."""
    if markdown and ui.as_json:
        raise UsageError("--markdown and --json exclude each other", hint="give one of them")
    import cnnx
    from cnnx.report.markdown import markdown as as_markdown

    architecture = cnnx.show(model, options)
    if markdown:
        ui.write(as_markdown(architecture.blocks(), title="**{}**"))
    else:
        ui.show(architecture, command="show")


app.command("init")(init_command)
app.command("export")(export_command)


@app.command("calibrate")
@command_of(CalibrateOptions)
def calibrate_command(ui: Ui, model: Model, options: CalibrateOptions) -> None:
    """Compare INT8 ranges by calibration method; with --folds, test whether the images suffice."""
    import cnnx

    ui.show(cnnx.calibrate(model, options, listener=ui.listen), command="calibrate")


@app.command("build")
@command_of(EngineOptions)
def build_command(ui: Ui, bundle: BundlePath, options: EngineOptions) -> None:
    """Build engines from a bundle's graph and add them to the bundle."""
    import cnnx

    ui.show(cnnx.build(bundle, options, listener=ui.listen), command="build")


app.command("preflight")(preflight_command)
app.command("validate")(validate_command)
app.command("classify")(classify_command)
app.command("bench")(bench_command)
app.command("package")(package_command)
app.command("compare")(compare_command)
app.command("survey")(survey_command)
app.command("report")(report_command)


@app.command("inspect")
@command_of(InspectOptions)
def inspect_command(ui: Ui, bundle: BundlePath, options: InspectOptions) -> None:
    """Verify a bundle's hashes; show the precision of each layer and why."""
    import cnnx

    ui.show(cnnx.inspect(bundle, options), command="inspect")


app.command("sign")(sign_command)
app.command("verify")(verify_command)
app.command("bom")(bom_command)
app.command("diagnose")(diagnose_command)
app.command("tune")(tune_command)
app.command("doctor")(doctor_command)
app.command("cache")(cache_command)
app.add_typer(fleet_group, name="fleet")
