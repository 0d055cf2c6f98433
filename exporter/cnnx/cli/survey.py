"""`cnnx survey`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cnnx.cli.options import Debug, Json, Power, Sensor, Target, Weights, power_pass, sizes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rich.console import Console

    from cnnx.options import Precision

_FIGURES = ("batch", "p50 ms", "p99 ms", "images/s", "GPU MiB", "gross mJ", "net mJ")


def survey_command(
    models: Annotated[
        str,
        typer.Option(help="Names with commas between; recipe or ONNX files; folders of finished bundles."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of rows, bundles and reports; goes on where it was.")],
    precisions: Annotated[str, typer.Option(help="Of what is exported.")] = "fp16,int8",
    batches: Annotated[str, typer.Option(help="Pictures a run.")] = "1,2,4,8,16,32",
    target: Target = "auto",
    weights: Weights = "pretrained",
    images: Annotated[int | None, typer.Option(help="Calibration and validation pictures at most.")] = None,
    seconds: Annotated[float, typer.Option(help="The least time to measure each for.")] = 3.0,
    percentile: Annotated[float, typer.Option(help="To be told, in percent.")] = 99.0,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(help="Launch an engine as one CUDA graph; without either, where that is possible."),
    ] = None,
    power: Power = False,
    sensor: Sensor = None,
    again: Annotated[
        bool, typer.Option("--again", help="Do failed cells once more, or whose energy failed.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export, validate and measure networks in every precision and batch; a failed cell is a row."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, debug=debug) as ui:
        import cnnx
        from cnnx.pipeline.survey.plan import SurveyPlan

        result = cnnx.survey(
            models.split(","),
            out=out,
            precisions=cast("Sequence[Precision]", precisions.split(",")),
            batches=sizes_of(batches, option="--batches"),
            plan=SurveyPlan(
                target=target,
                weights=weights,
                seconds=seconds,
                percentile=percentile,
                cuda_graph=cuda_graph,
                power=power_pass(power=power, rate=None, sensor=sensor),
                images=images,
            ),
            again=again,
            listener=ui.listen,
        )

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
