"""What was done on each host of a hosts file, by several at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from cnnx.errors import CnnxError, EnvironmentLacks
from cnnx.pipeline.fleet.cluster.hosts import Machine
from cnnx.pipeline.progress import Listener, ProgressEvent
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.report.tables.fleet import host_blocks

Outcome = Literal["joined", "already up", "stopped", "not running", "failed"]
_MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class HostOutcome:
    """What was done on one host.

    Attributes:
        name: name of the device; "head" for a head without one.
        address: its address, as in the hosts file.
        outcome: joined, already up, stopped, not running, or failed.
        step: the step that failed; empty: none.
        reason: why it failed; empty: it did not.
        hint: how to fix it; empty: it did not fail.
        seconds: how long it took.
    """

    name: str
    address: str
    outcome: Outcome
    step: str
    reason: str
    hint: str
    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class HostsResult(Result):
    """What was done on the hosts of a file.

    Attributes:
        address: HOST:PORT of the head.
        hosts: each host, the head first.
    """

    address: str
    hosts: tuple[HostOutcome, ...]

    @property
    def exit_code(self) -> int:
        """0, or 4 if a host failed."""
        failed = any(host.outcome == "failed" for host in self.hosts)
        return EnvironmentLacks.exit_code if failed else 0

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        return host_blocks(f"Fleet {self.address}", self.hosts)


class Steps:
    """Runs the steps of one host, and keeps which one failed."""

    def __init__(self, name: str, machine: Machine, listener: Listener) -> None:
        self.name, self.machine = name, machine
        self._listener = listener
        self._step = ""
        self._began = time.monotonic()

    def run(self, work: Callable[[Steps], Outcome]) -> HostOutcome:
        """Run the steps of a host; an error of one becomes its outcome."""
        try:
            return self.ended(work(self))
        except CnnxError as error:
            return self.ended("failed", step=self._step, reason=error.what, hint=error.hint or "")

    def step(self, title: str, work: Callable[[], str]) -> str:
        """Run one step, and report it once it has ended."""
        self._step, began = title, time.monotonic()
        result = work()
        reused = result in ("same", "running")
        seconds = time.monotonic() - began
        self._listener(ProgressEvent(f"{self.name}: {title}", reused=reused, seconds=seconds))
        return result

    def ended(self, outcome: Outcome, *, step: str = "", reason: str = "", hint: str = "") -> HostOutcome:
        """The outcome of this host."""
        seconds = time.monotonic() - self._began
        return HostOutcome(self.name, self.machine.address, outcome, step, reason, hint, seconds)


def one_at_a_time(listener: Listener) -> Listener:
    """A listener that several threads may call."""
    lock = threading.Lock()

    def listen(event: ProgressEvent) -> None:
        with lock:
            listener(event)

    return listen


def at_once(works: Sequence[Callable[[], HostOutcome]]) -> tuple[HostOutcome, ...]:
    """Run the work of several hosts at once; outcomes in order."""
    if not works:
        return ()
    with ThreadPoolExecutor(min(len(works), _MOST_AT_ONCE)) as pool:
        return tuple(pool.map(lambda work: work(), works))
