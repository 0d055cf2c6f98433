"""The command `cnnx doctor`. Heavy imports happen when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import command_of
from cnnx.errors import UsageError
from cnnx.options.bundles import ArchiveOptions, ProofOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnx.cli.ui import Ui
    from cnnx.pipeline.doctor.doctor import DoctorResult
    from cnnx.report.table import Block


@command_of(ProofOptions, ArchiveOptions)
def doctor_command(ui: Ui, options: ProofOptions, archive: Path | None) -> None:
    """Show what this machine has, what cnnx can do on it, and how to add the rest."""
    import cnnx
    from cnnx.pipeline.plain import plain
    from cnnx.report.table import Remark
    from cnnx.report.tables.machine import machine_blocks

    def machine(found: DoctorResult) -> Iterator[Block]:
        return machine_blocks(found.environment, found.state, plain(found))

    if archive is None:
        if options != ProofOptions():
            what = "--bundle, --folder, --no-power and --again require --proof"
            raise UsageError(what, hint="add --proof proof.tar.gz")
        found = cnnx.doctor()
        ui.show(found, command="doctor", render=lambda _: machine(found))
        return
    from cnnx.report.tables.survey import survey_blocks

    result = cnnx.prove(archive, options, listener=ui.listen)

    def render(_: bool) -> list[Block]:
        nothing = "nothing was measured, for the reasons above"
        state = nothing if result.exit_code else "ready to send"
        records = Remark(f"{result.archive}, {state}", "records")
        return [*machine(result.diagnosis), *survey_blocks(result.rows), records]

    ui.show(result, command="doctor", render=render)
    raise typer.Exit(result.exit_code)
