"""Runs the steps of a pipeline and reports their progress to one callback."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from cnnx.store.cache import Entry, Store

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (units done, units in total)."""


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """The progress of a step, or a note.

    Attributes:
        step: title of the step.
        done: units done.
        total: units in total; 0 if unknown.
        reused: whether the step's result was found in the cache.
        seconds: how long the step took, once finished; None while it runs.
        note: whether `step` is instead a sentence for the user.
        timed: whether the step measures time: nothing else may run then, above all no animated display.
    """

    step: str
    done: int = 0
    total: int = 0
    reused: bool = False
    seconds: float | None = None
    note: bool = False
    timed: bool = False


@dataclass(frozen=True, slots=True)
class NodeEvent(ProgressEvent):
    """The progress of a node of a fleet; `step`, `done` and `total` are those of the job that it does.

    Attributes:
        node: name of the node.
        device: name of its device.
        job: name of its job; empty if it has none.
        state: what it does; "done" and "failed" end a job. A node that is "lost" is tried again.
        seconds_left: estimate for the job; None if nothing like it has been done yet.
        jobs_done: jobs of the whole fleet that have an outcome.
        jobs: jobs of the whole fleet that are known so far.
    """

    node: str = ""
    device: str = ""
    job: str = ""
    state: Literal["connecting", "idle", "working", "done", "failed", "lost"] = "idle"
    seconds_left: float | None = None
    jobs_done: int = 0
    jobs: int = 0


Listener = Callable[[ProgressEvent], None]


def silent(_event: ProgressEvent) -> None:
    """A listener that ignores all events."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """The time of a finished step."""

    step: str
    seconds: float
    reused: bool


class Steps:
    """Runs steps one after another, reports them to a listener, and keeps their times."""

    def __init__(self, listener: Listener = silent, *, store: Store | None = None) -> None:
        self.store = store or Store()
        self.times: list[StepTime] = []
        self._listener = listener

    def note(self, sentence: str) -> None:
        """Report a sentence that the user should read."""
        self._listener(ProgressEvent(sentence, note=True))

    def run(self, title: str, work: Callable[[Progress], T], *, timed: bool = False) -> T:
        """Run a step whose result is never cached, such as a measurement; see `ProgressEvent.timed`."""
        return self._run(title, lambda progress: (work(progress), False), timed=timed)

    def make(
        self, title: str, kind: str, inputs: Mapping[str, Any], fill: Callable[[Path, Progress], None]
    ) -> Entry:
        """Run a step that writes files, unless the cache has them.

        Args:
            title: title of the step.
            kind: its folder in the cache.
            inputs: plain data that lists everything its result depends on.
            fill: writes its files into a folder.
        """

        def work(progress: Progress) -> tuple[Entry, bool]:
            entry = self.store.make(kind, inputs, lambda folder: fill(folder, progress), warn=self.note)
            return entry, entry.reused

        return self._run(title, work, timed=False)

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
