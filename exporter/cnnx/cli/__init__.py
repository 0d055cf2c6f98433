"""The command line: parse, one call of the API, render. The only place that prints or exits."""

from __future__ import annotations

import sys

from cnnx.machine.isolated import isolate


def main() -> None:
    """Entry point of the `cnnx` command."""
    isolate()
    from cnnx.cli.app import app

    sys.exit(app())
