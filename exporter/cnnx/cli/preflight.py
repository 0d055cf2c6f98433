"""The command `cnnx preflight`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import BundlePath, command_of
from cnnx.options.bundles import PreflightOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(PreflightOptions)
def preflight_command(ui: Ui, bundle: BundlePath, options: PreflightOptions) -> None:
    """Compare a bundle with this machine before anything is loaded: hashes, engines, driver, memory.

    Exit codes: 0 if an engine fits, 3 if a file is damaged, 4 if nothing fits.
    """
    import cnnx

    result = cnnx.preflight(bundle, options, listener=ui.listen)
    ui.show(result, command="preflight")
    raise typer.Exit(result.exit_code)
