"""`cnnx doctor`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import Debug, Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnx.pipeline.doctor.doctor import Diagnosis
    from cnnx.report.table import Block


def doctor_command(
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
    again: Annotated[
        bool,
        typer.Option("--again", help="With --folder: do failed cells once more, or whose energy failed."),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, what cnnx can do on it, and what each missing thing would take."""
    from cnnx.cli.ui import command
    from cnnx.errors import UsageError

    with command(as_json=as_json, debug=debug) as ui:
        import cnnx
        from cnnx.pipeline.plain import plain
        from cnnx.report.table import Remark
        from cnnx.report.tables.machine import machine_blocks

        def tell(found: Diagnosis) -> Iterator[Block]:
            return machine_blocks(found.environment, found.state, plain(found))

        if proof is None:
            if bundle or folder or no_power or again:
                what = "--bundle, --folder, --no-power and --again are for a proof"
                raise UsageError(what, mend="give --proof proof.tar.gz")
            diagnosis = cnnx.doctor()
            ui.show(diagnosis, command="doctor", render=lambda _: tell(diagnosis))
            return
        from cnnx.report.tables.survey import survey_blocks

        plan = cnnx.SurveyPlan() if no_power else None
        result = cnnx.prove(
            proof, bundles=bundle or (), plan=plan, folder=folder, again=again, listener=ui.listen
        )

        def render(_: bool) -> list[Block]:
            nothing = "nothing was measured, for the reasons above"
            how = nothing if result.exit_code else "ready to be sent back"
            records = Remark(f"{result.archive}, {how}", "records")
            return [*tell(result.diagnosis), *survey_blocks(result.rows), records]

        ui.show(result, command="doctor", render=render)
        raise typer.Exit(result.exit_code)
