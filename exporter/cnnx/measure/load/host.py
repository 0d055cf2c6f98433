"""Time, and how several streams run at the same time: threads, or a simulation in tests."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

Worker = Callable[[], None]

# How often the calling thread looks after the workers.
_LOOK_S = 1.0
# A thread that waits for Python's interpreter lock asks for it after this time instead of 5 ms, so that
# reading the state of the machine does not delay a stream.
_SWITCH_S = 0.0005


class Host(Protocol):
    """A clock, and a way to run workers at the same time."""

    def clock(self) -> int:
        """Monotonic time in nanoseconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for that time or a little longer."""
        ...

    def together(
        self, workers: Sequence[Worker], *, meanwhile: Callable[[], object], stop: Callable[[], object]
    ) -> None:
        """Run workers at the same time, and wait for all.

        Args:
            workers: functions to call, each in a thread of its own.
            meanwhile: called about once a second in the calling thread.
            stop: tells the workers to end soon; called when one fails, and on Ctrl-C.

        Raises:
            Exception: the first error of a worker, after all have ended.
            KeyboardInterrupt: on Ctrl-C, after all have ended.
        """
        ...


class Threads:
    """Real time and threads; satisfies `Host`."""

    clock = staticmethod(time.perf_counter_ns)
    sleep = staticmethod(time.sleep)

    def together(
        self, workers: Sequence[Worker], *, meanwhile: Callable[[], object], stop: Callable[[], object]
    ) -> None:
        """See `Host`."""
        errors: list[BaseException] = []

        def guarded(worker: Worker) -> None:
            try:
                worker()
            except BaseException as error:
                errors.append(error)
                stop()

        threads = [threading.Thread(target=guarded, args=(worker,), daemon=True) for worker in workers]
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        try:
            for thread in threads:
                thread.start()
            while running := [thread for thread in threads if thread.is_alive()]:
                running[0].join(_LOOK_S)
                if running[0].is_alive():
                    meanwhile()
        finally:
            stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            sys.setswitchinterval(before)
        if errors:
            raise errors[0]


THREADS = Threads()
