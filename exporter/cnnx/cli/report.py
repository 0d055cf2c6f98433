"""The command `cnnx report`. Heavy imports happen when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import check_report, command_of
from cnnx.errors import UsageError
from cnnx.options.bundles import FileOptions, ThumbnailOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[RUN]...", help="Bundles, records in runs/, survey folders, or reports in JSON."),
]


@command_of(ThumbnailOptions, FileOptions)
def report_command(
    ui: Ui,
    options: ThumbnailOptions,
    survey: Path | None,
    out: Sequence[str],
    runs: Runs = None,
) -> None:
    """Write a report of what was recorded, or of a survey: a page to read, or a file for CI."""
    import cnnx

    if bool(runs) == (survey is not None):
        raise UsageError("give runs, or --survey FOLDER", hint="cnnx report BUNDLE, for example")
    if survey is not None and options != ThumbnailOptions():
        raise UsageError("--images and --no-images have no effect on a survey", hint="drop them")
    files = out or ("report.html" if survey is None else "survey.html",)
    check_report(files)
    if survey is not None:
        result = cnnx.write_survey_report(survey, files)
    else:
        result = cnnx.write_report(runs or [], files, options)
    ui.show(result, command="report")
