"""Streams that run at the same time on one device, in simulated time: nothing waits, nothing is random."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from cnnx.device import Device
from cnnx.errors import CnnxError

MS = 1_000_000


class SimulatedHost:
    """Satisfies `cnnx.measure.load.host.Host`.

    Each worker is a thread, but only one runs at a time: the one whose wait ends first, of several the first.
    Time goes on only in `sleep`, and while a session runs.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self._waits: dict[int, int] = {}
        self._turns: dict[int, threading.Semaphore] = {}
        self._ended = threading.Semaphore(0)
        self._place = threading.local()

    def clock(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.wait_until(self.now_ns + max(1, round(seconds * 1e9)))

    def wait_until(self, ns: int) -> None:
        place = getattr(self._place, "of", None)
        if place is None:  # the calling thread, while no workers run
            self.now_ns = max(self.now_ns, ns)
            return
        self._waits[place] = ns
        self._ended.release()
        self._turns[place].acquire()

    def together(
        self,
        workers: Sequence[Callable[[], None]],
        *,
        meanwhile: Callable[[], object],
        stop: Callable[[], object],
    ) -> None:
        errors: list[BaseException] = []

        def run(place: int, worker: Callable[[], None]) -> None:
            self._place.of = place
            self._turns[place].acquire()
            try:
                worker()
            except BaseException as error:
                errors.append(error)
                stop()
            self._ended.release()

        self._turns = {place: threading.Semaphore(0) for place in range(len(workers))}
        self._waits = dict.fromkeys(self._turns, self.now_ns)
        threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(workers)]
        for thread in threads:
            thread.start()
        looked = self.now_ns
        while self._waits:
            place = min(self._waits, key=lambda each: (self._waits[each], each))
            self.now_ns = max(self.now_ns, self._waits.pop(place))
            if self.now_ns - looked >= 1e9:
                looked = self.now_ns
                meanwhile()
            self._turns[place].release()
            self._ended.acquire()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


class SharedDevice:
    """A device that runs one batch after another, in the order of arrival.

    Args:
        host: its time.
        run_ns: time of a run, given its number.
        room: number of sessions that it has memory for.
        fails: number of the run that fails.
    """

    def __init__(
        self,
        host: SimulatedHost,
        run_ns: Callable[[int], int],
        *,
        room: int = 99,
        fails: int | None = None,
    ) -> None:
        self.host, self.run_ns, self.room, self.fails = host, run_ns, room, fails
        self.free_ns = self.runs = self.sessions = 0

    def open(self) -> SharedSession:
        if self.sessions == self.room:
            raise CnnxError("out of memory", hint="run fewer streams")
        self.sessions += 1
        return SharedSession(self)


class SharedSession:
    """Satisfies `cnnx.runtimes.Session`."""

    runtime, runtime_version, output_names = "fake", "1", ("logits",)
    device = Device("cpu", "nowhere")

    def __init__(self, on: SharedDevice) -> None:
        self._on = on
        self.seen: list[float] = []

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        device = self._on
        self.seen.append(float(images.flat[0]))
        device.runs += 1
        if device.runs == device.fails:
            raise CnnxError("the device fell off the bus")
        device.free_ns = max(device.free_ns, device.host.now_ns) + device.run_ns(device.runs)
        device.host.wait_until(device.free_ns)
        return {"logits": images.reshape(len(images), -1)}

    def sibling(self) -> SharedSession:
        return self._on.open()

    def close(self) -> None:
        self._on.sessions -= 1
