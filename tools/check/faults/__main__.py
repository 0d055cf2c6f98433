"""Write docs/reliability.md: what commands leave when they are killed, or disks, images and clocks fail.

python -m tools.check.faults [--names "kills/*"] [--page-only]

Each command starts from the same files, runs in a process of its own, and meets one fault. Then its files
must be the old or the new ones, bundles must open, the user's files must be there, and the same command must
give what it gives undisturbed. Records are written to build/faults/records; what has a record is not run
again. Small disks (tmpfs) need the right to mount: root, or user namespaces.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cnnx.store.own_code import own_code
from tools import ROOT
from tools.bench.measured import here_and_now
from tools.check.faults import calls, clocks, disks, images, page, postscript, sensors, signals, twice
from tools.check.faults.judge import Undisturbed, undisturbed
from tools.check.faults.sandbox import Sandbox, warm
from tools.check.faults.trials import Setting, killed
from tools.check.faults.world import COMMANDS, Command, make_world
from tools.resumable import Record, Records, asked_for, fill, one_by_one

FOLDER = ROOT / "build" / "faults"
Work = Callable[..., Iterable[Record]]

# Commands whose trials take seconds each; their places are sampled.
_SLOW = (
    "export lenet5",
    "export --repair",
    "bench",
    "diagnose",
    "report",
    "report --survey",
    "survey",
    "doctor --proof",
)
_SAMPLED = 4
_SIGNALLED = ("export --int8", "build", "bench", "report", "survey", "sign")
_UNREAD = ("bom", "compare")
_ON_SMALL_DISKS = ("export --int8", "build", "report", "sign", "bom")
_DATED = (
    "export --int8",
    "build",
    "validate",
    "report",
    "compare",
    "package --for triton",
    "sign",
    "bom",
    "cache --prune",
)


class Trials:
    """The world, and how each command runs in it undisturbed; both are made when they are first needed."""

    def __init__(self, network: Path | None, folder: Path, share: float) -> None:
        self._network, self.folder, self.share = network, folder, share
        self._usual: dict[str, Undisturbed] = {}

    @property
    def whole(self) -> bool:
        """Whether all commands are tried, also those that need PyTorch or a survey."""
        return self._network is None

    @functools.cached_property
    def world(self) -> Sandbox:
        """The files that commands start from."""
        folder = self.folder / "world"
        made, code = folder / "made", own_code("cnnx.pipeline", "cnnx.cli")["digest"]
        if not made.is_file() or made.read_text() != code:
            shutil.rmtree(folder, ignore_errors=True)
            make_world(self._network or _lenet5(self.folder), folder, survey=self.whole)
            made.write_text(code)
        return Sandbox(folder)

    def usual(self, command: Command) -> Undisturbed:
        """The command without a fault."""
        if command.name not in self._usual:
            self._usual[command.name] = undisturbed(command, self.world, self.folder / "sandbox")
        return self._usual[command.name]

    def of_command(self, command: Command, work: Work, *more: Any) -> Iterable[Record]:
        """Trials of one command."""
        sandbox = self.folder / "sandbox"
        return work(Setting(command, self.world, self.usual(command), sandbox, self.share), *more)

    def of_pair(self, first: Command, second: Command) -> Iterable[Record]:
        """Trials of two commands at once."""
        return self.of_command(first, twice.beside, second, self.usual(second))

    def of_world(self, work: Work, *more: Any) -> Iterable[Record]:
        """Trials that bring their own command."""
        return work(self.world, self.folder / "sandbox", *more)


def _lenet5(folder: Path) -> Path:
    """LeNet-5 with its weights, as an ONNX file; exported in a process of its own, as it needs PyTorch."""
    out = folder / "lenet5"
    if not (out / "model.onnx").is_file():
        command = [sys.executable, "-m", "cnnx", "export", "lenet5", "--fp32", "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
    return out / "model.onnx"


def _cells(trials: Trials) -> dict[str, Callable[[], Iterable[Record]]]:
    """Name -> function that yields the trials of a cell."""
    missing = () if trials.whole else ("export lenet5", "report --survey")
    commands = {each.name: each for each in COMMANDS if each.name not in missing}
    quick = [name for name in commands if name not in _SLOW]
    cells: dict[str, Callable[[], Iterable[Record]]] = {}

    def add(group: str, names: Iterable[str], work: Work, *more: Any) -> None:
        for name in names:
            if name in commands:
                cells[f"{group}/{name}"] = functools.partial(trials.of_command, commands[name], work, *more)

    times = max(1, round(trials.share * _SAMPLED))
    for change in images.CHANGES:
        cells[f"images/{change}"] = functools.partial(trials.of_world, images.changes, change, times)
    for first, second in twice.PAIRS:
        pair = (commands[first], commands[second])
        cells[f"two at once/{first} + {second}"] = functools.partial(trials.of_pair, *pair)
    add("disk full", quick, disks.errors, "disk full")
    add("disk full", _SLOW[1:], disks.errors, "disk full", 2 * _SAMPLED)
    for error in list(disks.ERRORS)[1:]:
        add(error, commands, disks.errors, error, _SAMPLED)
    add("file-size limit", quick, disks.file_limits)
    for place in ("work", "cache"):
        add(f"small disk for {place}", _ON_SMALL_DISKS, disks.small_disks, place)
    for name in signals.SIGNALS:
        add(name, _SIGNALLED, signals.interrupted, name)
    add("unread output", _UNREAD, signals.unread)
    add("clock", _DATED, clocks.jumps)
    add("dates of files", _DATED, clocks.dated)
    cells["PostScript/named .jpg"] = functools.partial(trials.of_world, postscript.named_as_images)
    cells["sensors/bench --power"] = functools.partial(trials.of_world, sensors.vanishing)
    add("kills", commands, killed)
    return cells


def _record(work: Callable[[], Iterable[Record]], share: float) -> Record:
    started, used = time.monotonic(), _cpu_s()
    tried = list(work())
    spent = {"seconds": time.monotonic() - started, "cpu_seconds": _cpu_s() - used}
    return {"trials": tried, "share": share, **spent, **here_and_now()}


def _cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> int:
    """Run cells without a record, and write the page; 1 if anything was wrong."""
    parser = asked_for(__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of records and of trials")
    parser.add_argument("--network", type=Path, help="ONNX file to use instead of LeNet-5; prints the tables")
    parser.add_argument("--share", type=float, default=1.0, help="share of the trials to run")
    asked = parser.parse_args()
    records = Records(asked.folder / "records")
    trials = Trials(asked.network, asked.folder.resolve(), asked.share)
    cells = {name: work for name, work in _cells(trials).items() if fnmatch.fnmatch(name, asked.names)}
    if not asked.page_only:
        os.nice(10)
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # of versions of cnnx that do not set it
        mounts = disks.own_mounts()
        warm(torch=trials.whole)
        runnable = {
            name: (work, asked.share)
            for name, work in cells.items()
            if mounts or not name.startswith("small disk")
        }
        fill(records, one_by_one(runnable, _record), again=asked.again, in_words=page.in_words)
    found = records.among(_cells(trials))
    if trials.whole:
        page.write(found)
    else:
        print(page.tables(found))
    return int(any(trial["wrong"] for name in cells if name in found for trial in found[name]["trials"]))


if __name__ == "__main__":
    calls.preload("tools.check.faults")
    sys.exit(main())
