"""Single trials: a command with one fault, what it leaves, and the same command again."""

from __future__ import annotations

import re
import signal
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tools.check.faults.calls import Fault, Mode
from tools.check.faults.judge import (
    Undisturbed,
    badly_ended,
    inspected,
    left_behind,
    run_again,
    state_after,
)
from tools.check.faults.sandbox import Ended, Sandbox
from tools.check.faults.world import Command

Record = dict[str, Any]
_T = TypeVar("_T")
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}

# What every file that is written goes through; one place stands for all.
_COMMON = re.compile(
    r"(\w+) .*/(owner\.json|new|inputs\.json|entry\.json|journal\.json(?:\.new)?|locks/\*|\.cnnx-\*draft)$"
)
_NAMED_BY_CHANCE = re.compile(
    r"[0-9a-f]{32}|(?<=\.cnnx-)\w{8}\.|\d{8}T\d{6}\.\d+Z|(?<=/)tmp\w{8}|(?<=-)\w{8}\b"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A command with its world, how it runs undisturbed, and a folder for its trials.

    `share`: share of the trials to run.
    """

    command: Command
    world: Sandbox
    usual: Undisturbed
    folder: Path
    share: float = 1.0

    def times(self, count: int) -> int:
        """Number of trials to run, out of `count`."""
        return max(1, round(self.share * count))

    def some(self, of: Sequence[_T]) -> Sequence[_T]:
        """A share of these, spread evenly; it differs from command to command."""
        first = zlib.crc32(self.command.name.encode())
        return [of[(first + index) % len(of)] for index in spread(self.times(len(of)), len(of))]


def trial(setting: Setting, fault: Fault, *, again: bool = True) -> Record:
    """Run a command with a fault, and compare what it leaves with what it leaves otherwise.

    Args:
        again: run it again even if it has left everything as it was.
    """
    command, usual = setting.command, setting.usual
    sandbox = setting.world.copy(setting.folder)
    try:
        command.prepare(sandbox)
        ended = sandbox.run(command.arguments, fault)
        struck = bool(ended.calls) or fault.file_limit is not None
        wrong = list(_badly_ended(ended, fault)) if struck else []
        _, found = state_after(sandbox, usual)
        left = left_behind(sandbox)
        opened = list(inspected(sandbox))
        # A bundle may be half replaced until the next command opens it and finishes what was committed.
        state, later = state_after(sandbox, usual)
        wrong += opened + later + [each for each in found if each.endswith("was lost")]
        wrong += usual.without_result(ended, state)
        if ended.code >= 0 and fault.mode is not Mode.READ_ONLY:
            wrong += [f"left {each}" for each in (*left["drafts"], *left["temporary"])]
        if again or wrong or state != "before" or ended.code < 0:
            wrong += run_again(command, sandbox, usual, state)
        then = left_behind(sandbox)
        return {
            "at": fault.at,
            "call": ended.calls[0] if ended.calls else "",
            "exit": ended.code,
            "said": ended.err.strip()[-600:] if ended.code != usual.code else "",
            "struck": struck,
            "state": state,
            "left": {key: len(value) for key, value in left.items()},
            "still_left": {key: len(value) for key, value in then.items()},
            "wrong": list(dict.fromkeys(wrong)),
        }
    finally:
        sandbox.remove()


def killed(setting: Setting) -> Iterator[Record]:
    """Kill a command at calls that change files, in the middle of those that write."""
    for at in spread(setting.times(setting.command.kills), len(setting.usual.calls)):
        yield trial(setting, Fault(Mode.SEND, at, signal.SIGKILL))


def _badly_ended(ended: Ended, fault: Fault) -> Iterator[str]:
    if fault.mode is not Mode.SEND:
        yield from badly_ended(ended)
        return
    if ended.code not in (0, 1, 6, _EXIT_CODES[signal.Signals(fault.code)]):
        yield f"exit code {ended.code}"
    if "Traceback" in ended.err:
        yield "a traceback"


def spread(count: int, of: int) -> list[int]:
    """At most `count` numbers spread evenly over 0..of."""
    return sorted({int((index + 0.5) * of / count) for index in range(count)})


def points(calls: Sequence[str]) -> list[int]:
    """The first call of each kind on each file; the files that every write goes through count once."""
    seen: dict[str, int] = {}
    for number, call in enumerate(calls):
        name = _NAMED_BY_CHANCE.sub("*", call)
        seen.setdefault(_COMMON.sub(r"\1 \2", name), number)
    return sorted(seen.values())
