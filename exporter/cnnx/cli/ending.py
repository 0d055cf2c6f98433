"""Ends a command in good order when the system tells it to: SIGTERM, or SIGHUP as its terminal is closed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

# Python handles a signal between two instructions. A library may run for minutes in one, such as a build.
_GRACE_S = 5.0


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process with 128 plus their number, after it has tidied up.

    It ends after some seconds in any case, and at once on a second signal. Signals that the parent process
    ignores, as nohup does, stay ignored.
    """
    handled = frozenset(
        each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL
    )
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(readable, handled), daemon=True).start()
    for each in handled:
        signal.signal(each, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


def _watch(readable: int, handled: frozenset[int]) -> None:
    while (number := os.read(readable, 1)[0]) not in handled:
        pass
    time.sleep(_GRACE_S)
    os._exit(128 + number)
