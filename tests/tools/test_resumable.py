"""A long run that was killed resumes and repeats nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import ROOT
from tools.resumable import Records, fill, one_by_one

# Two groups of three cells; each notes its name when it runs, and the one that is named kills the process.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from tools.resumable import Records, fill

def run(wanted):
    for cell in wanted:
        with open("ran", "a") as ran:
            print(cell, file=ran)
        if cell == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        yield cell, {"is": cell}

groups = [([f"{group}/{number}" for number in range(3)], run) for group in "ab"]
fill(Records(Path("kept")), groups, again=False, jobs=int(sys.argv[2]))
"""
CELLS = [f"{group}/{number}" for group in "ab" for number in range(3)]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("killed_in", ["a/0", "a/2", "b/1"])
def test_what_was_killed_resumes_and_repeats_only_the_cell_it_was_killed_in(
    tmp_path: Path, killed_in: str, jobs: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for kill, code in ((killed_in, -signal.SIGKILL), ("", 0)):
        command = [sys.executable, "-c", PROGRAM, kill, str(jobs)]
        assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=60).returncode == code
    ran = (tmp_path / "ran").read_text().split()
    repeated = {cell for cell in ran if ran.count(cell) > 1}
    assert killed_in in repeated and (len(repeated) == 1 or jobs == 2) and max(map(ran.count, ran)) == 2
    assert Records(tmp_path / "kept").among(CELLS) == {cell: {"is": cell} for cell in CELLS}


@pytest.mark.parametrize("damage", ["", '{"is": "b', "[1]", "null", "\x00\xff"])
def test_a_damaged_record_is_made_again_and_no_other(tmp_path: Path, damage: str) -> None:
    records, ran = Records(tmp_path), list[str]()

    def run(name: str) -> dict[str, object]:
        ran.append(name)
        return {"is": name}

    def go(*, again: bool = False) -> None:
        fill(records, one_by_one({name: (name,) for name in "abc"}, run), again=again)

    go()
    records.place("b").write_text(damage, encoding="latin-1")
    (tmp_path / "c.part").write_text("half of a draft")
    go()
    assert ran == ["a", "b", "c", "b"] and records.get("b") == {"is": "b"}
    go(again=True)
    assert ran[4:] == ["a", "b", "c"]


def test_a_record_that_will_not_do_is_made_again(tmp_path: Path) -> None:
    records, cells = Records(tmp_path), one_by_one({"a": (2,)}, lambda number: {"is": number})
    records.keep("a", {"failed": "no memory"})
    for done, found in ((bool, {"failed": "no memory"}), (lambda record: "failed" not in record, {"is": 2})):
        fill(records, cells, again=False, done=done)
        assert records.get("a") == found
