"""No process outlives its supervisor, and the supervisor does not outlive who started it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cnnx.pipeline.fleet.cluster import supervisor
from tests.inputs.fleet import eventually, processes_of

# A program that leaves daemons: in sessions of their own, with parents that have ended, deaf to SIGTERM.
TREE = """
import os, signal, sys, time
folder, ends = sys.argv[1:]
for number in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if number == 0 and os.fork() == 0:
            os.setsid()
        open(f"{folder}/{os.getpid()}", "w").close()
        time.sleep(600)
while len(os.listdir(folder)) < 4:
    time.sleep(0.02)
sys.exit(7) if ends == "ends" else time.sleep(600)
"""
CALLER = "import subprocess, sys, os; subprocess.run([*sys.argv[1:3], str(os.getpid()), *sys.argv[3:]])"


def command(folder, ends):
    folder.mkdir()
    return [sys.executable, "-c", TREE, str(folder), ends]


def test_daemons_of_a_program_that_ended_are_ended_too(tmp_path):
    start = [sys.executable, supervisor.__file__, str(os.getpid()), *command(tmp_path / "tree", "ends")]
    assert subprocess.run(start, timeout=60).returncode == 7
    assert not processes_of(tmp_path)


def test_sigterm_ends_all(tmp_path):
    words = command(tmp_path / "tree", "waits")
    process = subprocess.Popen([sys.executable, supervisor.__file__, str(os.getpid()), *words])
    eventually(lambda: len(list((tmp_path / "tree").iterdir())) == 4)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == (-signal.SIGTERM) % 256
    assert not processes_of(tmp_path)


def test_whoever_started_it_is_killed_and_all_ends(tmp_path):
    words = command(tmp_path / "tree", "waits")
    caller = subprocess.Popen([sys.executable, "-c", CALLER, sys.executable, supervisor.__file__, *words])
    eventually(lambda: len(list((tmp_path / "tree").iterdir())) == 4)
    caller.kill()
    caller.wait()
    eventually(lambda: not processes_of(tmp_path))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    stubborn = (
        "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"
    )
    impatient = (
        "import sys; from cnnx.pipeline.fleet.cluster import supervisor; supervisor._GRACE_S = 0.5; "
        "sys.exit(supervisor.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", impatient, str(os.getpid()), sys.executable, "-c", stubborn]
    process = subprocess.Popen([*words, str(tmp_path / "ready")])
    eventually((tmp_path / "ready").exists)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == (-signal.SIGKILL) % 256 and time.monotonic() - began > 0.5
    assert not processes_of(tmp_path)


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP"])
def test_signals_of_a_terminal_do_not_end_it_before_its_caller_says_so(tmp_path, number):
    words = command(tmp_path / "tree", "waits")
    process = subprocess.Popen([sys.executable, supervisor.__file__, str(os.getpid()), *words])
    eventually(lambda: len(list((tmp_path / "tree").iterdir())) == 4)
    process.send_signal(signal.Signals[number])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.terminate()
    process.wait(60)
    assert not processes_of(tmp_path)
