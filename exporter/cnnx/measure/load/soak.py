"""A soak: runs a network for minutes or hours, and keeps how its latency and the machine behaved."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cnnx.errors import CnnxError, UsageError
from cnnx.machine.state import MachineState, read_state
from cnnx.measure.latency import Clock, OnShareDone, batches_of, no_garbage_collection
from cnnx.measure.load.back_to_back import BackToBack
from cnnx.measure.load.trend import Trend, trend_of
from cnnx.measure.load.windows import OpenWindow, Window, window_seconds
from cnnx.measure.machine_rules import held_shares
from cnnx.runtimes import Images, Session

Ended = Literal["complete", "interrupted", "failed"]
PowerNow = Callable[[], "float | None"]
"""Mean power since the last call, or the power now, in mW; None if it is unknown."""

_LOOK_NS = 1_000_000_000
ENDS_S = 60.0
"""The first and the last minute are compared."""


def _no_power() -> None:
    """Read no power."""


@dataclass(frozen=True, slots=True)
class SoakRun:
    """What was measured.

    Attributes:
        of: name of the series of times, as in `Latency.series`.
        batch: images per run.
        asked_s: requested duration in seconds.
        windows: windows in order, at least one. The last is left out if it was not complete.
        ended: whether the requested time passed, Ctrl-C ended it, or a run failed.
        reason: the error if a run failed; else empty.
    """

    of: str
    batch: int
    asked_s: float
    windows: tuple[Window, ...]
    ended: Ended
    reason: str = ""

    @property
    def seconds(self) -> float:
        """How long it ran."""
        last = self.windows[-1]
        return (last.start_ns + last.span_ns) / 1e9

    @property
    def images_per_second(self) -> float:
        """Images per second over the whole time, without reading the state of the machine."""
        busy = sum(window.busy_ns for window in self.windows)
        return self.batch * sum(window.runs for window in self.windows) * 1e9 / busy

    @property
    def drift(self) -> Trend | None:
        """Trend of the median; None for fewer than ten windows."""
        starts = [window.start_ns / 1e9 for window in self.windows]
        return trend_of(starts, [float(window.p50_ns) for window in self.windows], ends_s=ENDS_S)

    @property
    def throttled_share(self) -> float | None:
        """Share of the time for which a limit reduced the GPU's clock; None if that cannot be read.

        By NVML's counters where it counts, else by the readings in which it named a reason.
        """
        counted = held_shares([window.state for window in self.windows])
        if counted:
            return min(1.0, max(counted.values()))
        known = [window for window in self.windows if window.throttled is not None]
        if not known:
            return None
        return sum(window.throttled or 0 for window in known) / sum(window.readings for window in known)

    def as_dict(self) -> dict[str, Any]:
        """The windows as plain data for JSON."""
        return {
            "of": self.of,
            "batch": self.batch,
            "asked_s": self.asked_s,
            "ended": self.ended,
            "reason": self.reason,
            "windows": [window.as_dict() for window in self.windows],
        }


def measure_soak(
    session: Session,
    images: Images,
    *,
    batch: int,
    seconds: float,
    look: Callable[[], MachineState] = read_state,
    power: PowerNow = _no_power,
    progress: OnShareDone = lambda _share: None,
    clock: Clock = time.perf_counter_ns,
) -> SoakRun:
    """Run a session back to back for a time. Memory does not grow with it.

    About once a second, runs pause while the state of the machine is read; the run after that is not counted.
    Ctrl-C or a run that fails ends the soak, and what was measured until then is returned.

    Args:
        session: a session that has run before.
        images: (M, C, H, W) pool of images to cycle through.
        batch: images per run.
        seconds: how long.
        look: reads the state of the machine.
        power: reads the power.
        progress: called with the completed share after each reading.
        clock: monotonic clock in nanoseconds.

    Raises:
        KeyboardInterrupt, CnnxError: the soak ended before its first window.
        UsageError: the duration is not positive.
    """
    if not seconds > 0:
        raise UsageError(f"invalid duration {seconds:g} s of a soak", hint="use a time above 0")
    load = BackToBack(session, batches_of(images, batch), clock)
    soak = _Soak(load, look, power, clock, int(seconds * 1e9), int(window_seconds(seconds) * 1e9))
    ended: Ended = "complete"
    reason = ""
    try:
        with no_garbage_collection():
            soak.run(progress)
    except KeyboardInterrupt:
        if not soak.windows:
            raise
        ended = "interrupted"
    except CnnxError as error:
        if not soak.windows:
            raise
        ended, reason = "failed", error.what
    return SoakRun(load.of, batch, seconds, tuple(soak.windows), ended, reason)


class _Soak:
    """The windows that are complete so far."""

    def __init__(
        self,
        load: BackToBack,
        look: Callable[[], MachineState],
        power: PowerNow,
        clock: Clock,
        all_ns: int,
        window_ns: int,
    ) -> None:
        self.windows: list[Window] = []
        self._load, self._look, self._power, self._clock = load, look, power, clock
        self._all_ns, self._window_ns = all_ns, window_ns

    def run(self, progress: OnShareDone) -> None:
        self._power()  # counters have no power before their second reading
        origin = self._clock()
        while (left := origin + self._all_ns - self._clock()) > 0:
            # A rest of less than half a window belongs to the last one.
            span = self._window_ns if left > 1.5 * self._window_ns else left
            window = self._window(origin, self._clock() + span, progress)
            self.windows.append(window.close(origin, self._clock()))
            # Of this window alone: a full collection takes longer than a hundred runs.
            gc.collect(1)

    def _window(self, origin: int, until: int, progress: OnShareDone) -> OpenWindow:
        window = OpenWindow(self._clock())
        while (now := self._clock()) < until:
            found = self._load.run(min(now + _LOOK_NS, until))
            window.add(found.times_ns, runs=found.runs, busy_ns=self._clock() - now)
            window.look(self._look(), self._power())
            progress(min(1.0, (self._clock() - origin) / self._all_ns))
        return window
