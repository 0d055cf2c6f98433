"""Commands that a signal ends: they tidy up, and the exit code is that of the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A command that works in a temporary folder until a signal comes, in Python or in a library.
WORK = """
import hashlib, sys, time
import cnnx.cli.app, cnnx.cli.ending
from cnnx.store.files import scratch_folder

cnnx.cli.ending._GRACE_S = 1.0

def app():
    with scratch_folder() as folder:
        (folder / "ready").touch()
        if sys.argv[1] == "library":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)
        time.sleep(60)

cnnx.cli.app.app = app
cnnx.cli.main()
"""


@pytest.fixture
def started(tmp_path):
    """Start a command that works; gives its process once it does."""

    def start(where, **more):
        command = [sys.executable, "-c", WORK, where]
        process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=-1, **more)
        while not list(tmp_path.glob("*/ready")):
            assert process.poll() is None
            time.sleep(0.01)
        return process

    return start


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_a_command_that_tidies_up(started, tmp_path, name, code):
    process = started("python")
    process.send_signal(signal.Signals[name])
    _, said = process.communicate(timeout=30)
    assert process.returncode == code and b"Traceback" not in said
    assert not any(tmp_path.iterdir())


def test_a_library_that_does_not_return_is_not_waited_for(started):
    """Python handles a signal only when the library is done, which here takes many minutes."""
    process = started("library")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


def test_what_the_parent_ignores_is_ignored(started, tmp_path):
    process = started("python", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143 and not any(tmp_path.iterdir())


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_without_standard_streams_a_command_works_and_asks_nothing(tiny, closed):
    script = f'"$0" -m cnnx init "$1" {closed}'
    done = subprocess.run(["bash", "-c", script, sys.executable, tiny], cwd=tiny.parent, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and tiny.with_suffix(".toml").is_file()


def test_in_a_folder_that_was_removed_it_is_said(tiny_bundle, tmp_path):
    (tmp_path / "gone").mkdir()
    script = 'cd "$2" && rmdir "$2" && exec "$0" -m cnnx report "$1" --out r.md'
    command = ["bash", "-c", script, sys.executable, str(tiny_bundle), str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4 and "working folder was removed" in done.stderr


def test_without_a_home_folder_the_cache_must_be_named(monkeypatch, cnnx_command, tmp_path):
    for name in ("CNNX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    code, _, said = cnnx_command("cache")
    assert code == 4 and "no home folder" in said and "CNNX_CACHE" in said
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path))
    assert cnnx_command("cache")[0] == cnnx_command("list", "--with-weights")[0] == 0


def no_home():
    raise RuntimeError("Could not determine home directory.")
