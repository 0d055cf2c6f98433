"""The command line: parses arguments, calls the API, renders results. Only this package prints or exits."""

from __future__ import annotations

import sys

from cnnx.machine.isolated import isolate


def main() -> None:
    """Entry point of the `cnnx` command."""
    isolate()
    from cnnx.cli.app import app

    sys.exit(app())
