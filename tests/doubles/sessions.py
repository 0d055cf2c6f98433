"""A network that is not there, for tests of what runs networks: nothing is patched, nothing waits.

It keeps to the `Session` protocol. Its time is that of a `FakeClock`, which stands still but for what
the script of latencies says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import UsageError
from cnnx.runtimes import RunSeries, RunTimes


@dataclass(slots=True)
class FakeClock:
    """A clock to hand over in the place of `time.perf_counter_ns`."""

    now_ns: int = 0

    def __call__(self) -> int:
        """The time, in nanoseconds."""
        return self.now_ns


class FakeSession:
    """A session that answers from a function and takes the time it is given.

    Args:
        logits: (N, C, H, W) -> (N, classes).
        latencies_ns: how far each run moves the clock; used up, it starts again.
        clock: the clock to move.

    Attributes:
        batches: number of images of each run so far.
    """

    runtime = "fake"
    runtime_version = "1"
    device = Device("cpu", "nowhere")
    output_names: tuple[str, ...] = ("logits",)

    def __init__(
        self,
        logits: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        *,
        latencies_ns: Iterable[int] = (1_000_000,),
        clock: FakeClock | None = None,
    ) -> None:
        self._logits = logits
        self._latencies = itertools.cycle(latencies_ns)
        self._clock = clock or FakeClock()
        self._closed = False
        self.batches: list[int] = []

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Answer, and move the clock.

        Raises:
            UsageError: the session is closed.
        """
        if self._closed:
            raise UsageError("the session is closed")
        self.batches.append(len(images))
        self._clock.now_ns += next(self._latencies)
        return {"logits": self._logits(images)}

    def close(self) -> None:
        """Running afterwards is an error."""
        self._closed = True


class FakeTimedSession(FakeSession):
    """One that also tells where the time of a batch went; satisfies `cnnx.runtimes.TimedSession`.

    Args:
        runs: what each timed run tells; used up, it starts again. Its latency is what it takes of the clock.
    """

    def __init__(
        self,
        logits: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        *,
        runs: Iterable[RunTimes],
        clock: FakeClock | None = None,
    ) -> None:
        super().__init__(logits, clock=clock)
        self._runs = itertools.cycle(runs)

    def timed_series(self, images: NDArray[np.float32], runs: int) -> RunSeries:
        """Move the clock by the runs' latencies, and one more at first, and tell their parts."""
        self.timed_run(images)
        times = tuple(self.timed_run(images) for _ in range(runs))
        return RunSeries(times, sum(run.latency_ns for run in times))

    def timed_run(self, images: NDArray[np.float32]) -> RunTimes:
        """Move the clock by the run's latency and tell its parts.

        Raises:
            UsageError: the session is closed.
        """
        if self._closed:
            raise UsageError("the session is closed")
        self.batches.append(len(images))
        times = next(self._runs)
        self._clock.now_ns += times.latency_ns
        return times
