"""Running the steps of a pipeline and reporting their progress through one callback, as plain events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cnnx.store.cache import Entry, Store

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Told (units done, units in all)."""


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Where a step stands.

    Attributes:
        step: what is being done, in words.
        done: units finished, of `total`; both 0 where the length is not known.
        reused: the step was found finished in the cache.
        seconds: how long it took, once it is over; None while it runs.
        note: nothing is being done: `step` is a sentence to be read before what follows.
        timed: what is being done is timed: nothing may go on beside it, a display that moves by itself least.
    """

    step: str
    done: int = 0
    total: int = 0
    reused: bool = False
    seconds: float | None = None
    note: bool = False
    timed: bool = False


Listener = Callable[[ProgressEvent], None]


def silent(_event: ProgressEvent) -> None:
    """The listener that ignores everything."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """A finished step of a run, for its summary."""

    step: str
    seconds: float
    reused: bool


class Steps:
    """Does steps one after another, tells a listener, and remembers how long each took."""

    def __init__(self, listener: Listener = silent, *, store: Store | None = None) -> None:
        self.store = store or Store()
        self.times: list[StepTime] = []
        self._listener = listener

    def run(self, title: str, work: Callable[[Progress], T], *, timed: bool = False) -> T:
        """Do a step whose result is never kept, such as a measurement; see `ProgressEvent.timed`."""
        return self._run(title, lambda progress: (work(progress), False), timed=timed)

    def make(
        self, title: str, kind: str, inputs: Mapping[str, Any], fill: Callable[[Path, Progress], None]
    ) -> Entry:
        """Do a step that gives files, unless the store already has them.

        Args:
            title: the step in words.
            kind: its folder in the store.
            inputs: plain data naming all that its result depends on.
            fill: writes its files into a folder.
        """

        def work(progress: Progress) -> tuple[Entry, bool]:
            entry = self.store.make(kind, inputs, lambda folder: fill(folder, progress), warn=self._warn)
            return entry, entry.reused

        return self._run(title, work, timed=False)

    def _warn(self, said: str) -> None:
        self._listener(ProgressEvent(said, note=True))

    def _run(self, title: str, work: Callable[[Progress], tuple[T, bool]], *, timed: bool) -> T:
        started = time.perf_counter()
        self._listener(ProgressEvent(title, timed=timed))
        result, reused = work(
            lambda done, total: self._listener(ProgressEvent(title, done, total, timed=timed))
        )
        seconds = time.perf_counter() - started
        self.times.append(StepTime(title, seconds, reused))
        self._listener(ProgressEvent(title, reused=reused, seconds=seconds))
        return result
