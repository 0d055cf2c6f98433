"""Runs many inputs through a door, in forked processes that may die."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.corpus import entries
from tools.check.fuzz.door import Door, Files, clear, lay
from tools.check.fuzz.judging import SECONDS, WAITED_SECONDS, Judged, judge, judge_command, limit_memory

EACH = 100
"""Every input with such a number also goes through the command."""
_MARGIN_S = 20


@dataclass(slots=True)
class Finding:
    """An input that cnnx did not handle as it should.

    Attributes:
        door: name of the door.
        index: number of the input; below 0 for one of the corpus.
        seed: name of the valid input that was changed.
        how: name of the change.
        files: the files that differ from the valid input's.
    """

    door: str
    index: int
    seed: str
    how: str
    judged: Judged
    files: Files = field(repr=False)


@dataclass(slots=True)
class Tally:
    """What came of all inputs of a door."""

    door: str
    tried: int = 0
    commands: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def add(self, judged: Judged) -> None:
        """Count one input."""
        self.tried += 1
        self.kinds[judged.kind] += 1
        self.classes[f"{judged.kind}: {judged.what}"] += 1
        self.slowest_s = max(self.slowest_s, judged.seconds)
        self.peak_bytes = max(self.peak_bytes, judged.peak_bytes)

    def add_command(self, judged: Judged) -> None:
        """Count one input that also went through the command."""
        self.commands += 1
        self.classes[judged.what] += 1
        self.kinds["finding"] += judged.kind == "finding"
        self.peak_bytes = max(self.peak_bytes, judged.peak_bytes)


class Trial:
    """A door whose valid inputs are made, ready for changed ones."""

    def __init__(self, door: Door, scratch: Path) -> None:
        import cnnx.cli.app  # noqa: F401  before forks, as in prepare

        self.door, self.scratch = door, scratch
        door.prepare()
        self.seeds = door.seeds(scratch)
        self.corpus = tuple(entries(door.name))
        gc.freeze()

    def changed(self, number: int, *, seed: int) -> tuple[str, Files, str]:
        """The input with a number: the name of its valid form, its files, and the name of the change.

        Numbers below 0 are those of the corpus.
        """
        if number < 0:
            name, what, files = self.corpus[number]
            return name, {**self.seeds[name], **files}, f"corpus: {what}"
        dice = Random(f"{seed} {self.door.name} {number}")
        while True:
            name = dice.choice(list(self.seeds))
            files, how = self.door.mutate(dice, self.seeds[name])
            if files != self.seeds[name]:
                return name, files, how

    def run(self, inputs: int, *, seed: int = 0, until: float | None = None) -> Tally:
        """Try the corpus, and then inputs by number.

        Args:
            inputs: how many.
            seed: of the dice.
            until: monotonic time at which to stop; None: try all.
        """
        started, tally = time.monotonic(), Tally(self.door.name)
        for number, judged in self._judged(range(-len(self.corpus), inputs), seed, until):
            if number >= 0 or judged.kind == "finding":
                tally.add(judged)
            if judged.kind == "finding":
                tally.findings.append(self._finding(number, seed, judged))
            elif (
                number % EACH == EACH - 1
                and number > 0
                and (found := self._through_command(number, seed, judged))
            ):
                tally.add_command(found)
                if found.kind == "finding":
                    tally.findings.append(self._finding(number, seed, found))
        tally.seconds = time.monotonic() - started
        return tally

    def _finding(self, number: int, seed: int, judged: Judged) -> Finding:
        name, files, how = self.changed(number, seed=seed)
        new = {
            path: content for path, content in files.items() if self.seeds[name].get(path, b"\0") != content
        }
        return Finding(self.door.name, number, name, how, judged, new)

    def _judged(self, numbers: range, seed: int, until: float | None) -> Iterator[tuple[int, Judged]]:
        """Number and judgement; a process that died is followed by another, from the next number on."""
        context = multiprocessing.get_context("fork")
        while numbers and (until is None or time.monotonic() < until):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=self._work, args=(numbers, seed, until, theirs))
            process.start()
            theirs.close()
            at = numbers[0]
            try:
                while ours.poll(WAITED_SECONDS + _MARGIN_S):
                    done = ours.recv()
                    if done is None:
                        return
                    if isinstance(done, str):
                        raise SystemExit(done)
                    yield done
                    at = done[0] + numbers.step
                process.kill()
                yield at, Judged("finding", "hang in native code", SECONDS)
            except EOFError:
                process.join()
                yield at, Judged("finding", f"process ended: {process.exitcode}")
            finally:
                process.kill()
                process.join()
                ours.close()
            numbers = range(at + numbers.step, numbers.stop, numbers.step)

    def _work(self, numbers: range, seed: int, until: float | None, results: Connection) -> None:
        """In the child: read the valid inputs, then the changed ones."""
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.scratch)
        warnings.simplefilter("ignore")
        folders = Path(tempfile.mkdtemp(dir=self.scratch))
        before: dict[str, Any] = {}
        standing: dict[str, Files] = {}
        for name, files in self.seeds.items():
            lay(folders / name, finished := self.door.finished(files), {})
            try:
                standing[name], before[name] = finished, self.door.read(folders / name)
            except Exception:
                results.send(f"{self.door.name}: the valid input {name} is refused\n{traceback.format_exc()}")
                return
        limit_memory()
        for number in numbers:
            if until is not None and time.monotonic() > until:
                break
            name, files, _ = self.changed(number, seed=seed)
            if self.door.writes:
                clear(folders / name)
                standing[name] = {}
            lay(folders / name, finished := self.door.finished(files), standing[name])
            standing[name] = finished
            results.send((number, judge(self.door, folders / name, before[name])))
        results.send(None)
        os._exit(0)

    def _through_command(self, number: int, seed: int, known: Judged) -> Judged | None:
        """What the command makes of an input; None if no command reads it."""
        _, files, _ = self.changed(number, seed=seed)
        with tempfile.TemporaryDirectory(dir=self.scratch) as work:
            folder = Path(work) / "input"
            lay(folder, self.door.finished(files), {})
            arguments, variables = self.door.command(folder), self.door.variables(folder)
            if not arguments:
                return None
            return judge_command(arguments, Path(work), known, variables=variables, lenient=self.door.lenient)
