"""The command line: parses arguments, calls the API, renders results. Only this package prints or exits."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TextIO, cast

from cnnx.cli.ending import end_on_signals
from cnnx.cli.streams import Forgiving, forget_stdout
from cnnx.errors import WriteFailed
from cnnx.machine.isolated import isolate

# Rich and Typer fail on a size that is not a number, such as "²".
_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")


def main() -> None:
    """Entry point of the `cnnx` command."""
    isolate()
    _drop_strange_sizes()
    # Started without them, as by cron or with >&-, Python has None here.
    sys.stdin = sys.stdin or io.StringIO()
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = cast(TextIO, Forgiving(sys.stderr or io.StringIO()))
    end_on_signals()
    try:
        from cnnx.cli.app import app

        sys.exit(app())
    except KeyboardInterrupt:  # while modules are imported
        sys.exit(130)
    except OSError as error:  # from --help and --version, which are no commands
        forget_stdout()
        sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
        sys.stderr.write("  hint:  free disk space, or write elsewhere\n")
        sys.exit(WriteFailed.exit_code)


def _drop_strange_sizes() -> None:
    """Treat sizes of the terminal that are not numbers as unknown."""
    for name in _SIZES:
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "")):
            os.environ.pop(name, None)
