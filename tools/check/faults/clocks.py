"""A wall clock that jumps while a command runs, and files with dates that ZIP and TAR cannot hold."""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Iterator, Mapping

from tools.check.faults.calls import Fault
from tools.check.faults.judge import badly_ended, damaged, run_again, state_after
from tools.check.faults.trials import Record, Setting

_HOUR_S = 3600
_UTC = datetime.timezone.utc
JUMPS: Mapping[str, int | datetime.datetime] = {
    "an hour forwards": _HOUR_S,
    "an hour backwards": -_HOUR_S,
    "three years backwards": -3 * 365 * 24 * _HOUR_S,
    "to 1970": datetime.datetime(1970, 1, 1, 1, tzinfo=_UTC),
    "to 1979": datetime.datetime(1979, 6, 1, tzinfo=_UTC),
    "to 2039": datetime.datetime(2039, 6, 1, tzinfo=_UTC),
    "to 2120": datetime.datetime(2120, 6, 1, tzinfo=_UTC),
}
DATES = (-1, 0, 100 * 24 * _HOUR_S, 4_733_510_400)
"""Times of files, in seconds since 1970; ZIP holds 1980 to 2107."""
_NEGATIVE = re.compile(r" -\d+(\.\d+)? m?s\b")


def jumps(setting: Setting) -> Iterator[Record]:
    """Let the wall clock jump in the middle of a command, or before it.

    Its files may say something else then, as records of the future do not count. They must be complete, and
    once the clock is right again, the command gives what it gives undisturbed.
    """
    command, usual = setting.command, setting.usual
    for number, (name, to) in enumerate(setting.some(list(JUMPS.items()))):
        by = int(to.timestamp() - time.time()) if isinstance(to, datetime.datetime) else to
        at = 0 if number % 2 else len(usual.calls) // 2
        sandbox = setting.world.copy(setting.folder)
        command.prepare(sandbox)
        ended = sandbox.run(command.arguments, Fault(at=at, clock_s=by))
        wrong = badly_ended(ended)
        wrong += ["a negative duration"] if _NEGATIVE.search(ended.err + ended.out) else []
        state, found = state_after(sandbox, usual)
        wrong += [each for each in found if not each.endswith("neither old nor new")]
        wrong += [f"{each} is damaged" for each in damaged(sandbox)]
        wrong += run_again(command, sandbox, usual, state)
        sandbox.remove()
        yield {"at": f"{name}, call {at}", "exit": ended.code, "said": ended.err[-600:], "wrong": wrong}


def dated(setting: Setting) -> Iterator[Record]:
    """Give all files a date, and run the command."""
    command, usual = setting.command, setting.usual
    for date in setting.some(DATES):
        sandbox = setting.world.copy(setting.folder)
        command.prepare(sandbox)
        for path in sandbox.root.rglob("*"):
            os.utime(path, (date, date), follow_symlinks=False)
        ended = sandbox.run(command.arguments)
        state, wrong = state_after(sandbox, usual)
        wrong += badly_ended(ended)
        wrong += usual.without_result(ended, state)
        wrong += [] if ended.code == usual.code else [f"exit code {ended.code}"]
        sandbox.remove()
        yield {"at": f"files of {date}", "exit": ended.code, "said": ended.err[-600:], "wrong": wrong}
