"""The command `cnnx sign`. Heavy imports happen when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cnnx.cli.options import BundlePath, command_of
from cnnx.options.bundles import SignOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

PASSPHRASE = "CNNX_KEY_PASSPHRASE"


@command_of(SignOptions)
def sign_command(ui: Ui, bundle: BundlePath, options: SignOptions) -> None:
    """Sign a bundle's files, with its engines, by OpenSSF Model Signing; writes model.sig in it."""
    import cnnx

    ui.show(cnnx.sign(bundle, options, passphrase=_passphrase(Path(options.key))), command="sign")


def _passphrase(key: Path) -> str | None:
    """The passphrase of an encrypted key: from the environment, or asked for in a terminal."""
    from cnnx.pipeline.sign.openssf import is_encrypted

    if not is_encrypted(key):
        return None
    given = os.environ.get(PASSPHRASE)
    if given is None and sys.stdin.isatty():
        given = typer.prompt(f"Passphrase of {key}", hide_input=True, err=True)
    return given
