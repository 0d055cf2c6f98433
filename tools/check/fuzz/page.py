"""Writes docs/fuzzing.md: what a run tried, and what came of it."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cnnx.machine.environment import cpu_model
from tools.check.fuzz.corpus import CORPUS
from tools.check.fuzz.doors import all_doors
from tools.check.fuzz.judging import BYTES, SECONDS
from tools.check.fuzz.running import EACH, Tally
from tools.check.fuzz.shown import table_of
from tools.markdown import table, write_page

PAGE = CORPUS.parent.parent / "docs" / "fuzzing.md"
_VALID = "valid: "

_HEAD = """# Fuzzing

Written by `python -m tools.check.fuzz --page`. Each entry point of cnnx for files of others is tried with
inputs that are valid but for a change, made with knowledge of the format. An input passes if

- it is refused with an exit code below 70 and a hint,
- or it gives the same result as without the change,
- or it gives another result, which an oracle for this entry point confirms: the result states what another
  reader finds in the file, and no checksum or seal contradicts.

It fails if it ends in an internal error, takes more than {seconds} s of processor time, makes the process
grow beyond {gib} GiB, or gives any other result. Every {each}th input also goes through the command.

CI tries the inputs that once failed (tests/corpus), and 1,000 new ones at each entry point. `make fuzz
MINUTES=60` tries others for longer. What fails is written to `build/fuzz`.

## Inputs and outcomes

{date}, seed {seed}, {machine}, Python {python}, {system}.

"""
_COUNT = """
{found}"Same result" includes changes in parts that cnnx does not read. No command reads proofs, or,
where CI runs, timing caches, tegrastats and the kernel's files of power: these are read in Python only.

## Differences that are right

"""
_BEFORE = """
## Before and after

Commit 0cb60d9 was tried with about 2,400 malformed inputs, written by hand. What did not hold then is refused
now, and is tested in tests/cli/test_hostile.py:

{hostile}

Fuzzing found these since, in the {doors} entry points above. All are fixed, and are tried again in each run:

"""
_HOSTILE = (
    (
        "an EPS named .jpg started Ghostscript; icons of 169 megapixels took 987 MiB",
        "seven formats by content, and the size is known before pixels are decoded",
    ),
    (
        "endless or heavy work: checkpoints that contain themselves, patterns, keys, pipes, functions, "
        "tensors and archives that unpack to gigabytes, slow downloads",
        "limits, each with an error",
    ),
    ("a compressed .pth was read as garbage", "refused"),
    (
        "internal errors: URLs, headers, recursive functions, unknown types, checkpoints, renames, `--out`, "
        "full disks, closed output, tegrastats",
        "proper errors",
    ),
    ("CSV, Markdown and terminals showed markup, formulas and control characters of names", "escaped"),
)


def write(tallies: Sequence[Tally], *, seed: int, page: Path = PAGE) -> None:
    """Write the page of a run."""
    facts = {"date": time.strftime("%Y-%m-%d"), "seed": seed, "python": platform.python_version()}
    machine = f"{cpu_model() or platform.machine()}, {os.cpu_count()} cores"
    head = _HEAD.format(
        seconds=SECONDS, gib=BYTES >> 30, each=EACH, machine=machine, system=platform.system(), **facts
    )
    rows = [(each.door, name, f"{count:,}") for each in tallies for name, count in _valid(each)]
    right = table(("entry point", "difference", "inputs"), rows, left=(0, 1))
    found = table(("entry point", "input", "what was changed"), _corpus(), left=(0, 1, 2))
    hostile = table(("on 0cb60d9", "now"), _HOSTILE, left=(0, 1))
    findings = sum(each.kinds["finding"] for each in tallies)
    fixed = f"The {findings} findings of this run are fixed since, in cnnx or in the check itself. "
    count = _COUNT.format(found=fixed if findings else "")
    before = _BEFORE.format(doors=len(tallies), hostile=hostile)
    write_page(page, f"{head}{table_of(tallies)}\n{count}{right}\n{before}{found}\n")


def _valid(tally: Tally) -> Iterator[tuple[str, int]]:
    for name, count in Counter(tally.classes).most_common():
        if name.startswith(_VALID):
            yield name.removeprefix(_VALID), count


def _corpus() -> Iterator[tuple[str, str, str]]:
    """A row for each entry of the corpus, in words."""
    names = {name.lower().replace(" ", "-").replace(".", "-"): name for name in all_doors()}
    for home in sorted(CORPUS.glob("*/*/*")):
        door, valid, change = home.relative_to(CORPUS).parts
        yield names.get(door, door), valid, change.replace("-", " ")
