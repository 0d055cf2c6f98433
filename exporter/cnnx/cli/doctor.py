"""`cnnx doctor`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import command_of
from cnnx.errors import UsageError
from cnnx.options.bundles import ArchiveOptions, ProofOptions

if TYPE_CHECKING:
    from rich.console import Console

    from cnnx.cli.ui import Ui


@command_of(ProofOptions, ArchiveOptions)
def doctor_command(ui: Ui, options: ProofOptions, archive: Path | None) -> None:
    """Say what this machine has, what cnnx can do on it, and what each missing thing would take."""
    import cnnx
    from cnnx.cli.machine import print_diagnosis

    if archive is None:
        if options != ProofOptions():
            what = "--bundle, --folder, --no-power and --again are for a proof"
            raise UsageError(what, mend="give --proof proof.tar.gz")
        diagnosis = cnnx.doctor()
        ui.show(diagnosis, command="doctor", render=lambda out, _: print_diagnosis(out, diagnosis))
        return
    from cnnx.cli.survey import print_rows

    result = cnnx.prove(archive, options, listener=ui.listen)

    def render(out: Console, _: bool) -> None:
        print_diagnosis(out, result.diagnosis)
        print_rows(out, result.rows)
        nothing = "nothing was measured, for the reasons above"
        how = nothing if result.exit_code else "ready to be sent back"
        out.print(f"records: {result.archive}, {how}", soft_wrap=True)

    ui.show(result, command="doctor", render=render)
    raise typer.Exit(result.exit_code)
