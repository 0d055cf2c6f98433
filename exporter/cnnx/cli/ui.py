"""Output of a command: progress and errors on stderr, the result on stdout, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from cnnx.cli.nodes import NodeDisplay
from cnnx.cli.streams import forget_stdout
from cnnx.errors import CnnxError, EnvironmentLacks, InputRefused, WriteFailed
from cnnx.pipeline.plain import JSON_SCHEMA, plain
from cnnx.pipeline.progress import NodeEvent, ProgressEvent
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.report.terminal import as_text, draw, escape

INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h: an error in cnnx itself."""

_REDRAW_S = 0.25
# Looked at five times as often, this gives at least a line a minute.
_LOGGED_S = 50.0
# Errors caused by paths that the user gave. ENOENT is not among them: commands check that files exist, so a
# missing file is an error in cnnx.
_PATH_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO})
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
_BROKEN_PIPE = 128 + signal.SIGPIPE


class _OutputFailed(WriteFailed):
    """Standard output could not be written."""


@contextlib.contextmanager
def _writing_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _OutputFailed(
            f"the output cannot be written: {error.strerror or error}",
            where="standard output",
            hint="free disk space, or write elsewhere",
        ) from error


def _nothing() -> None:
    """Write no report."""


class _Log:
    """Says once a minute how far a long step is, where there is no terminal to draw on.

    A thread does so, as some steps report nothing for minutes. While something is timed, it stays silent, and
    the events of the step say it instead.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        self._running: ProgressEvent | None = None
        self._said = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def follow(self, event: ProgressEvent | None) -> None:
        """Take the latest event of the running step; None: no step is running."""
        self._running = event
        if event is None:
            self._said = time.monotonic()
        elif event.timed:
            self._say()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_LOGGED_S / 5):
            if self._running is not None and not self._running.timed:
                self._say()

    def _say(self) -> None:
        event, now = self._running, time.monotonic()
        if event is None or now - self._said < _LOGGED_S:
            return
        self._said = now
        far = f"{event.done} of {event.total}" if event.total else "still running"
        self._out.print(f"  {escape(event.step)}: {far}", soft_wrap=True)


class Ui:
    """Shows progress, results and errors of one command."""

    def __init__(self, *, as_json: bool, verbose: bool = False) -> None:
        self.verbose = verbose
        self.as_json = as_json
        # In a file or a pipe a table has its natural width, unless COLUMNS is set.
        natural = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 1000
        self._out = Console(highlight=False, width=natural)
        self._err = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._log: _Log | None = None
        self._nodes: NodeDisplay | None = None
        self._drawn = 0.0

    def listen(self, event: ProgressEvent) -> None:
        """Show the progress of a step; finished steps leave a line."""
        if isinstance(event, NodeEvent):
            self._nodes = self._nodes or NodeDisplay(self._err, as_json=self.as_json)
            self._nodes.show(event)
            return
        if self.as_json:
            return
        if event.note:
            self._err.print(escape(event.step), soft_wrap=True)
            return
        if event.seconds is None and not self._err.is_terminal:
            self._log = self._log or _Log(self._err)
            self._log.follow(event)
            return
        if event.seconds is None:
            bar = self._display(moving=not event.timed)
            if not bar.tasks or bar.tasks[-1].description != event.step:
                bar.add_task(event.step, total=None)
            bar.update(bar.tasks[-1].id, completed=event.done, total=event.total or None)
            if event.timed and time.monotonic() - self._drawn > _REDRAW_S:
                bar.refresh()
                self._drawn = time.monotonic()
            return
        if self._progress:
            for task in list(self._progress.tasks):
                self._progress.remove_task(task.id)
        if self._log:
            self._log.follow(None)
        how = "reused" if event.reused else f"{event.seconds:.1f} s"
        self._err.print(f"  {escape(event.step):<38}{how:>8}")

    def stop(self) -> None:
        """Remove the progress display, and end the log."""
        if self._progress:
            self._progress.stop()
        if self._nodes:
            self._nodes.stop()
        if self._log:
            self._log.stop()
            self._log = None

    def _display(self, *, moving: bool) -> Progress:
        """The progress display. A thread redraws it (`moving`), except while something is timed."""
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
        result: Result,
        *,
        command: str,
        report: Callable[[], None] = _nothing,
    ) -> None:
        """Print a result as one JSON object, or as its blocks.

        Args:
            report: writes the report. Tables are printed before it, so that they survive a failed report.
                JSON is printed after it, as there is one object: the result or the error.
        """
        self.stop()
        if self.as_json:
            report()
            data = {"schema": JSON_SCHEMA, "command": command, "result": plain(result)}
            self.write(json.dumps(data, indent=1) + "\n")
        else:
            self._print(result.blocks(verbose=self.verbose))
            report()

    def write(self, text: str) -> None:
        """Write text to standard output."""
        with _writing_output():
            sys.stdout.write(text)

    def _print(self, blocks: Iterable[Block]) -> None:
        if self._out.is_terminal:
            with _writing_output():
                draw(self._out, blocks)
        else:
            # Without the blanks that fill a terminal's lines.
            self.write(as_text(blocks, width=self._out.width) + "\n")

    def forget_stdout(self) -> None:
        """Drop what could not be written to standard output; errors are then text."""
        forget_stdout()
        self.as_json = False

    def refuse(self, error: CnnxError) -> None:
        """Print an error: what is wrong, where, and a hint."""
        self.stop()
        kind = type(error).__name__
        if not self._wrote_error(kind, error.what, error.where, error.hint, error.exit_code):
            self._err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)

    def fault(self, error: Exception) -> None:
        """Print an error in cnnx itself."""
        self.stop()
        what, hint = f"{type(error).__name__}: {error}", "run again with --debug and report the traceback"
        if not self._wrote_error("internal error", what, None, hint, INTERNAL_ERROR):
            text = f"[bold red]internal error:[/] {escape(what)}\n  hint:  {hint}"
            self._err.print(text, soft_wrap=True)

    def _wrote_error(self, kind: str, what: str, where: str | None, hint: str | None, exit_code: int) -> bool:
        """Write an error as JSON; whether that is asked for, and standard output takes it."""
        if not self.as_json:
            return False
        error = {"kind": kind, "what": what, "where": where, "hint": hint}
        data = {"schema": JSON_SCHEMA, "error": error, "exit_code": exit_code}
        try:
            sys.stdout.write(json.dumps(data, indent=1) + "\n")
            sys.stdout.flush()
        except OSError:
            self.forget_stdout()
            return False
        return True


@contextlib.contextmanager
def command(*, as_json: bool, verbose: bool = False, debug: bool = False) -> Iterator[Ui]:
    """Run one command. Errors become a message and an exit code; `debug` adds the traceback."""
    ui = Ui(as_json=as_json, verbose=verbose)
    left: typer.Exit | None = None
    try:
        try:
            yield ui
        except typer.Exit as verdict:
            left = verdict
        with _writing_output():
            sys.stdout.flush()
        if left is not None:
            raise left
    except (typer.Exit, typer.Abort, KeyboardInterrupt):
        raise
    except BrokenPipeError:  # nobody reads the output; exit code 1 would be a verdict
        ui.forget_stdout()
        raise typer.Exit(_BROKEN_PIPE) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        refusal = _refusal(error)
        if isinstance(error, _OutputFailed):
            ui.forget_stdout()
        if refusal is None:
            ui.fault(error)
            raise typer.Exit(INTERNAL_ERROR) from None
        ui.refuse(refusal)
        raise typer.Exit(refusal.exit_code) from None
    finally:
        ui.stop()


def _refusal(error: Exception) -> CnnxError | None:
    """An error that the user can fix; None for an error in cnnx itself."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return WriteFailed(
            f"a file cannot be written: {error.strerror}",
            where=error.filename,
            hint="free disk space, or choose another folder (CNNX_CACHE: the cache; TMPDIR: temporary files)",
        )
    if isinstance(error, FileNotFoundError) and not _has_working_folder():
        return EnvironmentLacks("the working folder was removed", hint="change to another folder: cd ..")
    if isinstance(error, FileNotFoundError) and error.filename and _is_in_cache(error.filename):
        return EnvironmentLacks(
            "a file of the cache was removed while it was in use",
            where=error.filename,
            hint="run again, and leave the cache alone meanwhile",
        )
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename:
        return InputRefused(
            f"cannot use the path: {error.strerror}",
            where=error.filename,
            hint="check the name and the permissions, or use a different path",
        )
    if isinstance(error, MemoryError):
        return EnvironmentLacks(
            f"there is not enough memory{f': {error}' if str(error) else ''}",
            hint="close other programs, or use fewer images, a smaller batch, or a smaller network",
        )
    return error if isinstance(error, CnnxError) else None


def _has_working_folder() -> bool:
    try:
        return bool(Path.cwd())
    except FileNotFoundError:
        return False


def _is_in_cache(name: str) -> bool:
    from cnnx.store.cache import cache_folder

    return Path(os.path.realpath(name)).is_relative_to(os.path.realpath(cache_folder()))
