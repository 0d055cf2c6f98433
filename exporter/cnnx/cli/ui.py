"""One command's dealings with its user: progress on stderr, the result on stdout, refusals, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from cnnx.cli.terminal import draw
from cnnx.errors import CnnxError, InputRefused
from cnnx.pipeline.plain import JSON_SCHEMA, plain
from cnnx.pipeline.progress import ProgressEvent
from cnnx.report.table import Block

INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h: a fault of cnnx itself."""

_REDRAW_S = 0.25
# What a path from outside causes. ENOENT is none of them: commands look before they read, so a file that
# is suddenly absent is a fault of cnnx.
_PATH_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO})


def _nothing() -> None:
    """No report was asked for."""


class Ui:
    """What a command talks through."""

    def __init__(self, *, as_json: bool, verbose: bool = False) -> None:
        self.verbose = verbose
        self.as_json = as_json
        # Into a file or a pipe a table goes at its natural width, unless COLUMNS asks for another.
        natural = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 1000
        self._out = Console(highlight=False, width=natural)
        self._err = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._drawn = 0.0

    def listen(self, event: ProgressEvent) -> None:
        """Show where a step stands; a line stays for each that took noticeable time."""
        if self.as_json:
            return
        if event.note:
            self._err.print(escape(event.step), soft_wrap=True)
            return
        bar = self._display(moving=not event.timed)
        if event.seconds is None:
            if not bar.tasks or bar.tasks[-1].description != event.step:
                bar.add_task(event.step, total=None)
            bar.update(bar.tasks[-1].id, completed=event.done, total=event.total or None)
            if event.timed and time.monotonic() - self._drawn > _REDRAW_S:
                bar.refresh()
                self._drawn = time.monotonic()
            return
        for task in list(bar.tasks):
            bar.remove_task(task.id)
        how = "reused" if event.reused else f"{event.seconds:.1f} s"
        self._err.print(f"  {escape(event.step):<38}{how:>8}")

    def stop(self) -> None:
        """Take the progress display away."""
        if self._progress:
            self._progress.stop()

    def _display(self, *, moving: bool) -> Progress:
        """The display, drawn anew by a thread of its own, or, beside what is timed, when there is news."""
        if self._progress is None or self._progress.live.auto_refresh != moving:
            self.stop()
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                console=self._err,
                transient=True,
                auto_refresh=moving,
            )
            self._progress.start()
        return self._progress

    def show(
        self,
        result: Any,
        *,
        command: str,
        render: Callable[[bool], Iterable[Block]],
        report: Callable[[], None] = _nothing,
    ) -> None:
        """Print a result: one JSON object, or what `render` tells of it.

        Args:
            render: gives it as tables, facts and remarks; all of it where it is called with True.
            report: writes the report. A table is shown before, which a report that fails leaves standing; of
                JSON there is one object, so it comes after, or the refusal does.
        """
        self.stop()
        if self.as_json:
            report()
            data = {"schema": JSON_SCHEMA, "command": command, "result": plain(result)}
            sys.stdout.write(json.dumps(data, indent=1) + "\n")
        else:
            draw(self._out, render(self.verbose))
            report()

    def refuse(self, error: CnnxError) -> None:
        """Say what is wrong, where, and a hint."""
        self.stop()
        if self.as_json:
            self._write_error(type(error).__name__, error.what, error.where, error.hint, error.exit_code)
        else:
            self._err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)

    def fault(self, error: Exception) -> None:
        """Admit a fault of cnnx itself."""
        self.stop()
        what, hint = f"{type(error).__name__}: {error}", "run again with --debug and report the traceback"
        if self.as_json:
            self._write_error("internal error", what, None, hint, INTERNAL_ERROR)
        else:
            said = f"[bold red]internal error:[/] {escape(what)}\n  hint:  {hint}"
            self._err.print(said, soft_wrap=True)

    @staticmethod
    def _write_error(kind: str, what: str, where: str | None, hint: str | None, exit_code: int) -> None:
        said = {"kind": kind, "what": what, "where": where, "hint": hint}
        data = {"schema": JSON_SCHEMA, "error": said, "exit_code": exit_code}
        sys.stdout.write(json.dumps(data, indent=1) + "\n")


@contextlib.contextmanager
def command(*, as_json: bool, verbose: bool = False, debug: bool = False) -> Iterator[Ui]:
    """Run one command: every error becomes a message and its exit code; with `debug` a traceback, too."""
    ui = Ui(as_json=as_json, verbose=verbose)
    try:
        yield ui
    except (typer.Exit, typer.Abort, KeyboardInterrupt):
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        refusal = _refusal(error)
        if refusal is None:
            ui.fault(error)
            raise typer.Exit(INTERNAL_ERROR) from None
        ui.refuse(refusal)
        raise typer.Exit(refusal.exit_code) from None
    finally:
        ui.stop()


def _refusal(error: Exception) -> CnnxError | None:
    """What to tell of an error that the user can hint; None for a fault of cnnx itself."""
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename:
        return InputRefused(
            f"the system refuses a path: {error.strerror}",
            where=error.filename,
            hint="check its name and permissions, or give another",
        )
    return error if isinstance(error, CnnxError) else None
