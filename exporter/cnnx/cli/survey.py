"""`cnnx survey`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cnnx.cli.options import Debug, Json, Power, Sensor, Target, Weights, power_pass, sizes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnx.options import Precision


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
        from cnnx.report.table import Block, Remark
        from cnnx.report.tables.survey import survey_blocks

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

        def render(_: bool) -> list[Block]:
            place = Remark(f"{result.folder / 'survey.md'}, survey.json beside it")
            return [*survey_blocks(result.rows), place]

        ui.show(result, command="survey", render=render)
        raise typer.Exit(result.exit_code)
