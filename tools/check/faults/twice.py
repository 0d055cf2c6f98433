"""Two commands at once on the same output and the same cache."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from tools.check.faults.calls import Fault, Mode
from tools.check.faults.judge import Undisturbed, badly_ended, inspected, run_again, state_after
from tools.check.faults.trials import Record, Setting, spread
from tools.check.faults.world import Command

PAIRS = (
    ("export --int8", "export --int8"),
    ("export --int8", "export --repair"),
    ("export --int8", "cache --prune"),
    ("export --int8", "validate"),
    ("build", "build"),
    ("build", "sign"),
    ("build", "cache --prune"),
    ("validate", "cache --prune"),
    ("diagnose", "cache --prune"),
    ("calibrate", "calibrate"),
    ("calibrate", "cache --prune"),
    ("report", "report"),
    ("survey", "survey"),
    ("package --for triton", "package --for triton"),
    ("sign", "sign"),
    ("bom", "bom"),
    ("init", "init"),
)
"""Commands that are stopped in the middle, and commands that run meanwhile."""
_WAITS_S = 4.0
_TIMES = 4


def beside(setting: Setting, other: Command, after: Undisturbed) -> Iterator[Record]:
    """Stop a command at a call, run another one, and let the first go on.

    Args:
        other: the other command. If it waits for the first one, that goes on after some seconds.
        after: the other command, undisturbed.
    """
    command, usual = setting.command, setting.usual
    both = usual.joined(after)
    for at in spread(setting.times(_TIMES), len(usual.calls)):
        sandbox = setting.world.copy(setting.folder)
        command.prepare(sandbox)
        first = sandbox.start(command.arguments, Fault(Mode.SEND, at, signal.SIGSTOP))
        stopped = first.stopped()
        second = sandbox.start(other.arguments)
        waited = not second.has_ended(_WAITS_S)
        if stopped:
            first.go_on()
        ended = (first.wait(), second.wait())
        wrong = [f"the first: {each}" for each in badly_ended(ended[0])]
        wrong += [f"the second: {each}" for each in badly_ended(ended[1])]
        state, found = state_after(sandbox, both)
        wrong += [*found, *inspected(sandbox)]
        wrong += run_again(command, sandbox, both, state)
        sandbox.remove()
        yield {
            "at": at,
            "call": ended[0].calls[0] if ended[0].calls else "",
            "exit": [each.code for each in ended],
            "said": [each.err.strip()[-600:] for each in ended],
            "waited": waited,
            "wrong": wrong,
        }
