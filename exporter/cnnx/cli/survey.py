"""`cnnx survey`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import command_of
from cnnx.options.bundles import SurveyOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rich.console import Console

    from cnnx.cli.ui import Ui

_FIGURES = ("batch", "p50 ms", "p99 ms", "images/s", "GPU MiB", "gross mJ", "net mJ")

Models = Annotated[
    str,
    typer.Option(help="Names with commas between; recipe or ONNX files; folders of finished bundles."),
]


@command_of(SurveyOptions)
def survey_command(ui: Ui, models: Models, options: SurveyOptions) -> None:
    """Export, validate and measure networks in every precision and batch; a failed cell is a row."""
    import cnnx

    result = cnnx.survey(models.split(","), options, listener=ui.listen)

    def render(screen: Console, _: bool) -> None:
        print_rows(screen, result.rows)
        screen.print(f"{result.folder / 'survey.md'}, survey.json beside it", soft_wrap=True)

    ui.show(result, command="survey", render=render)
    raise typer.Exit(result.exit_code)


def print_rows(out: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """A survey's cells without the columns that nothing is known for; remarks below; what INT8 gained."""
    from rich.markup import escape

    from cnnx.cli.columns import titled
    from cnnx.report.survey import COLUMNS, cells_of, remarks_of

    cells = [dict(zip(COLUMNS, cells_of(row), strict=True)) for row in rows]
    known = [name for name in COLUMNS if any(cell[name] != "-" for cell in cells)]
    table = titled("Survey", *known, right=_FIGURES)
    for cell in cells:
        table.add_row(*(escape(cell[name]) for name in known))
    out.print(table)
    for remark in remarks_of(rows):
        out.print(escape(f"{remark.text}: {'; '.join(remark.cells)}"), soft_wrap=True)
        if remark.mend:
            out.print(f"  mend:  {escape(remark.mend)}", soft_wrap=True)
    for advice in dict.fromkeys(row["advice"] for row in rows if row.get("advice")):
        out.print(escape(advice), soft_wrap=True)
