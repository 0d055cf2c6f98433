"""What a command shows of its progress."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import cnnx.cli.ui
from cnnx.cli.ui import Ui, command
from cnnx.errors import EnvironmentLacks, WriteFailed
from cnnx.pipeline.progress import ProgressEvent
from cnnx.report.result import Result
from cnnx.report.table import Remark


def test_nothing_moves_beside_what_is_timed(capsys, monkeypatch):
    """A display redrawn ten times a second would slow down what is timed."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    ui, before = Ui(as_json=False), threading.active_count()
    ui.listen(ProgressEvent("export"))
    assert threading.active_count() == before + 1
    ui.listen(ProgressEvent("latency", 1, 100, timed=True))
    ui.listen(ProgressEvent("latency", 50, 100, timed=True))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the previous thread stops at its next redraw
    assert threading.active_count() == before
    ui.listen(ProgressEvent("latency", seconds=1.0))
    ui.stop()
    assert "latency" in capsys.readouterr().err


@pytest.mark.parametrize("timed", [False, True])
def test_a_long_step_writes_lines_to_a_log(timed, capsys, monkeypatch):
    """Without a terminal: silent steps by a thread, timed ones only from their own events."""
    monkeypatch.setattr(cnnx.cli.ui, "_LOGGED_S", 0.05)
    ui, said = Ui(as_json=False), ""
    deadline = time.monotonic() + 10
    ui.listen(ProgressEvent("latency", 7, 100, timed=timed))
    while "latency: 7 of 100" not in said and time.monotonic() < deadline:
        time.sleep(0.1)
        if timed:
            ui.listen(ProgressEvent("latency", 7, 100, timed=True))
        said += capsys.readouterr().err
    ui.listen(ProgressEvent("latency", seconds=1.0))
    ui.stop()
    assert "latency: 7 of 100" in said and "1.0 s" in capsys.readouterr().err


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("error, code", [(EnvironmentLacks("no GPU"), 4), (TypeError("odd"), 70)])
def test_every_error_has_its_exit_code_and_its_one_object(error, code, as_json, debug, capsys):
    with pytest.raises(typer.Exit) as left, command(as_json=as_json, debug=debug):
        raise error
    out, err = capsys.readouterr()
    assert left.value.exit_code == code and ("Traceback" in err) == debug
    if as_json:
        assert json.loads(out)["exit_code"] == code
    else:
        assert out == "" and str(error.args[0]) in err


@dataclass(frozen=True, slots=True, repr=False)
class Plain(Result):
    archive: Path

    def blocks(self, *, verbose=False):
        return [Remark("table")]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_report_that_fails_leaves_a_table_standing_and_of_json_one_object(as_json, capsys):
    def fail():
        raise WriteFailed("the disk is full")

    with pytest.raises(typer.Exit), command(as_json=as_json) as ui:
        ui.show(Plain(Path("a")), command="x", report=fail)
    out = capsys.readouterr().out
    assert "error" in json.loads(out) if as_json else out == "table\n"


def test_paths_of_a_result_are_whole(capsys):
    Ui(as_json=True).show(Plain(Path("a.tar.gz")), command="doctor")
    archive = json.loads(capsys.readouterr().out)["result"]["archive"]
    assert archive == str(Path("a.tar.gz").absolute())


@pytest.mark.parametrize(
    "error, says",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "a file cannot be written"),
        (OSError(errno.EROFS, "Read-only file system", "/tmp/x"), "/tmp/x"),
        (FileNotFoundError(errno.ENOENT, "No such file", "CACHE/graph/x"), "was removed while it was in use"),
    ],
)
def test_a_disk_that_fails_is_no_fault_of_cnnx(error, says, capsys, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", "CACHE")
    with pytest.raises(typer.Exit) as left, command(as_json=False):
        raise error
    said = capsys.readouterr().err
    assert left.value.exit_code == 4 and says in said and "hint:" in said and "standard output" not in said


VERDICT = """
import typer
from cnnx.cli.ui import command
try:
    with command(as_json=False) as ui:
        ui.write("x")
        raise typer.Exit(6)
except typer.Exit as left:
    raise SystemExit(left.exit_code)
"""


def test_a_verdict_that_cannot_be_written_is_none():
    """The exit code is raised before the output is flushed, which may then fail."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", VERDICT], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4 and "standard output" in done.stderr and "Exception" not in done.stderr


def test_output_that_nobody_reads_is_no_verdict():
    """Exit code 1 would say that a gate failed."""
    script = '"$0" -m cnnx list --json | true; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_sizes_of_the_terminal_that_are_not_numbers_are_unknown(cnnx_process):
    sizes = dict.fromkeys(("COLUMNS", "LINES", "TERMINAL_WIDTH"), "²")
    done = cnnx_process("cache", "--strange", env=sizes)
    assert done.returncode == 2 and "No such option" in done.stderr and "Traceback" not in done.stderr
