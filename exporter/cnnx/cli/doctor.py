"""The command `cnnx doctor`. Heavy imports happen when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import command_of
from cnnx.errors import UsageError
from cnnx.options.bundles import ArchiveOptions, ProofOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(ProofOptions, ArchiveOptions)
def doctor_command(ui: Ui, options: ProofOptions, archive: Path | None) -> None:
    """Show what this machine has, what cnnx can do on it, and how to add the rest."""
    import cnnx

    if archive is None:
        if options != ProofOptions():
            what = "--bundle, --folder, --no-power and --again require --proof"
            raise UsageError(what, hint="add --proof proof.tar.gz")
        ui.show(cnnx.doctor(), command="doctor")
        return
    result = cnnx.prove(archive, options, listener=ui.listen)
    ui.show(result, command="doctor")
    raise typer.Exit(result.exit_code)
