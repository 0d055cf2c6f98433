"""The command `cnnx survey`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import command_of
from cnnx.options.bundles import SurveyOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

Models = Annotated[
    str,
    typer.Option(help="Comma-separated names, recipe or ONNX files, or bundle folders."),
]


@command_of(SurveyOptions)
def survey_command(ui: Ui, models: Models, options: SurveyOptions) -> None:
    """Export, validate and measure networks in every precision and batch size."""
    import cnnx

    result = cnnx.survey(models.split(","), options, listener=ui.listen)
    ui.show(result, command="survey")
    raise typer.Exit(result.exit_code)
