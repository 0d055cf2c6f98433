"""Fuzzing: changed inputs at every entry point of cnnx, under limits of time and memory.

python -m tools.check.fuzz [DOOR...] [--inputs 1000] [--minutes 0] [--seed 0] [--jobs 2] [--page]

Each input is valid but for one change, made with knowledge of its format. It must be refused, or give the
result of the unchanged input, or another result that an oracle confirms. Every hundredth also goes through
the command. What fails is written to --out, in the form of tests/corpus: fix the fault, and move it there.
The exit code is 1 if there was a finding. With the same seed, a run tries the same inputs.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tools import ROOT
from tools.check.fuzz import page
from tools.check.fuzz.bundled import HOME, make_apart
from tools.check.fuzz.corpus import save
from tools.check.fuzz.doors import MODULES, all_doors, doors_of
from tools.check.fuzz.running import Tally, Trial
from tools.check.fuzz.shown import classes_of, findings_of, table_of


def run_here(names: list[str], inputs: int, *, seed: int, seconds: float) -> list[Tally]:
    """Try doors in forked children of this process, which must have no threads.

    Args:
        seconds: time for each door; 0: as long as its inputs take.
    """
    doors, tallies = all_doors(), []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="cnnx-fuzz-") as scratch:
            trial = Trial(doors[name], Path(scratch))
            until = time.monotonic() + seconds if seconds else None
            tallies.append(trial.run(inputs, seed=seed, until=until))
    return tallies


def run_apart(names: list[str], inputs: int, *, seed: int, seconds: float = 0.0) -> list[Tally]:
    """Try doors in a process of their own."""
    command = [sys.executable, "-m", "tools.check.fuzz", *names, "--tally", "--inputs", str(inputs)]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--seconds", str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    tallies: list[Tally] = pickle.loads(done.stdout)
    return tallies


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("doors", nargs="*", help="names of entry points; default: all")
    parser.add_argument("--inputs", type=int, default=1000, help="number of inputs of each door")
    parser.add_argument(
        "--minutes", type=float, default=0, help="try new inputs for this time, over all doors"
    )
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help="of the dice")
    parser.add_argument("--jobs", type=int, default=2, help="doors at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz", help="folder of the findings")
    parser.add_argument("--page", action="store_true", help="write docs/fuzzing.md")
    parser.add_argument("--tally", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.doors or list(all_doors())
    if options.tally:
        tallies = run_here(names, options.inputs, seed=options.seed, seconds=options.seconds)
        sys.stdout.buffer.write(pickle.dumps(tallies))
        return 0
    seconds = options.minutes * 60 * options.jobs / len(names)
    inputs = options.inputs if not seconds else sys.maxsize
    groups = [group for module in MODULES if (group := [d.name for d in doors_of(module) if d.name in names])]
    tallies = []
    with (
        tempfile.TemporaryDirectory(prefix="cnnx-bundle-") as shared,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        if len(groups) > 1:
            os.environ[HOME] = shared
            make_apart(Path(shared))
        run = partial(run_apart, inputs=inputs, seed=options.seed, seconds=seconds)
        for some in pool.map(run, groups):
            tallies += some
            for each in some:
                print(
                    f"{each.door}: {each.tried} in {each.seconds:.0f} s, {len(each.findings)} findings",
                    flush=True,
                )
    found = [finding for tally in tallies for finding in tally.findings]
    for finding in found:
        save(finding, options.out)
    print(f"\n{table_of(tallies)}\n\n{classes_of(tallies)}\n{findings_of(found)}")
    if options.page:
        page.write(tallies, seed=options.seed)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
