"""The command `cnnx verify`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import BundlePath, command_of
from cnnx.options.bundles import VerifyOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(VerifyOptions)
def verify_command(ui: Ui, bundle: BundlePath, options: VerifyOptions) -> None:
    """Check a bundle's signature, and that every file is as it was signed.

    Exit codes: 0 if it is, 3 if it is not, 4 if model-signing is not installed.
    """
    import cnnx

    result = cnnx.verify(bundle, options)
    ui.show(result, command="verify")
    raise typer.Exit(result.exit_code)
