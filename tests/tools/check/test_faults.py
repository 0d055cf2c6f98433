"""A sample of the trials of tools/check/faults; and its faults happen, and its judge sees what they do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tools import ROOT
from tools.check.faults.calls import Mode, library
from tools.check.faults.judge import Undisturbed, files_in, state_after
from tools.check.faults.sandbox import Sandbox
from tools.check.faults.trials import points, spread
from tools.check.faults.world import plant_theses

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None and not os.environ.get("CI"), reason="faults are injected by a C library"
)

# Writes a file in two pieces and copies it, with a fault at a call; then shows what became of it.
PROGRAM = """
import json, os, shutil, sys, time
from pathlib import Path
from tools.check.faults.calls import Fault, Mode, arm

root, mode, at, code, clock = Path(sys.argv[1]), *map(int, sys.argv[2:])
before = time.time()
arm(Fault(Mode(mode), at, code, clock_s=clock), root, os.open(os.devnull, os.O_WRONLY))
seen = []
try:
    with (root / "a").open("wb", buffering=0) as file:
        for _ in range(2):
            seen.append(file.write(b"12345678"))
    shutil.copyfile(root / "a", root / "b")
    (root / "a").rename(root / "c")
except OSError as error:
    seen.append(error.errno)
print(json.dumps([seen, round(time.time() - before)]))
"""


def run(folder, mode, at, code=0, clock=0):
    """Exit code, what the program saw, by how much the clock jumped, and the size of each file."""
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, *map(str, (folder, int(mode), at, int(code), clock))]
    environment = {**os.environ, "LD_PRELOAD": str(library())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    seen, jump = json.loads(done.stdout) if done.stdout else ([], 0)
    return done.returncode, seen, jump, {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_fault_happens_at_its_call(tmp_path):
    """Calls: 0 open a, 1 and 2 write it, 3 open b, 4 copy, 5 copy nothing more, 6 rename."""
    assert run(tmp_path / "none", Mode.COUNT, 0) == (0, [8, 8], 0, {"b": 16, "c": 16})
    kill = run(tmp_path / "kill", Mode.SEND, 2, signal.SIGKILL)
    assert kill[0] == -signal.SIGKILL and kill[3] == {"a": 12}, "half of the second piece"
    full = run(tmp_path / "full", Mode.FULL, 1, errno.ENOSPC)
    assert full[:2] == (0, [4, errno.ENOSPC]) and full[3] == {"a": 4}
    copied = run(tmp_path / "copy", Mode.FULL, 4, errno.ENOSPC)
    assert copied[1] == [8, 8, errno.ENOSPC] and copied[3] == {"a": 16, "b": 8}
    assert run(tmp_path / "once", Mode.ONCE, 6, errno.EIO)[1] == [8, 8, errno.EIO]
    assert run(tmp_path / "read-only", Mode.READ_ONLY, 0, errno.EROFS)[3] == {}
    assert abs(run(tmp_path / "clock", Mode.COUNT, 0, clock=-86400)[2] + 86400) < 60


def test_the_judge_tells_old_new_and_half_files_apart(tmp_path):
    def sandbox(name, text):
        made = Sandbox(tmp_path / name)
        plant_theses(made)
        (made.root / "work" / "r.json").write_text(text)
        return made

    old, new = '{"a": 1}', '{"a": 2, "b": 3}'
    before, after = (files_in(sandbox(name, text).root / "work") for name, text in (("o", old), ("n", new)))
    usual = Undisturbed(0, before, after, frozenset(), ())
    assert state_after(sandbox("1", old), usual) == ("before", [])
    assert state_after(sandbox("2", new), usual) == ("after", [])
    assert state_after(sandbox("3", new[:9]), usual) == ("between", ["r.json is neither old nor new"])
    # Where figures change, a file must be whole, and have the same keys.
    varying = Undisturbed(0, before, after, frozenset({"r.json"}), ())
    assert state_after(sandbox("4", '{"a": 7, "b": 8}'), varying) == ("after", [])
    for half in (new[:9], '{"b": 2}', ""):
        assert state_after(sandbox("5", half), varying)[1] == ["r.json is neither old nor new"]
    lost = sandbox("6", old)
    (lost.root / "cache" / "mine" / "thesis.txt").unlink()
    (lost.root / "work" / "r.json").unlink()
    _, wrong = state_after(lost, usual)
    assert wrong == ["cache/mine/thesis.txt was lost", "r.json was lost"]


def test_places_and_moments_are_spread_over_a_run():
    assert spread(3, 9) == [1, 4, 7] and spread(9, 3) == [0, 1, 2] and spread(1, 1) == [0]
    key, other = "0" * 32, "1" * 32
    calls = [f"write cache/graph/.cnnx-abcdefgh.draft/new/{key}/{name}" for name in ("a", "entry.json", "a")]
    calls += [f"write cache/crops/.cnnx-hgfedcba.draft/new/{other}/{name}" for name in ("a", "entry.json")]
    assert points(calls) == [0, 1, 3]


@pytest.mark.slow
def test_a_sample_of_the_trials_goes_well(tiny, tmp_path):
    folder = tmp_path / "faults"
    command = [sys.executable, "-m", "tools.check.faults", "--network", tiny, "--folder", folder]
    for names in ("*/bom", "PostScript/*"):
        sample = [*map(str, command), "--names", names, "--share", "0.2"]
        done = subprocess.run(sample, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    groups = ("kills", "disk full", "read-only", "device error", "file-size limit", "clock")
    for cell in (*(f"{group}/bom" for group in groups), "PostScript/named .jpg"):
        record = json.loads((folder / "records" / f"{cell}.json").read_text())
        assert record["trials"] and all(trial["wrong"] == [] for trial in record["trials"])
