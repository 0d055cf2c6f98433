"""Soaks on a clock of their own, with states of the machine that are made up."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from cnnx.errors import CnnxError, UsageError
from cnnx.machine.state import Frequency, MachineState
from cnnx.measure.load.soak import measure_soak
from cnnx.measure.load.windows import window_seconds, worst_of
from cnnx.runtimes import RunTimes
from tests.doubles.sessions import FakeClock, FakeSession, FakeTimedSession

MS = 1_000_000
POOL = np.zeros((2, 1, 2, 2), np.float32)


class Hot:
    """A device that is throttled from a minute on: its clock falls to 800 of 1,000 MHz, runs take longer."""

    def __init__(self, run_ms=20.0, *, counted=True, reasons=True, since_s=60.0):
        self.clock = FakeClock()
        self.run_ms, self.counted, self.reasons, self.since_s = run_ms, counted, reasons, since_s
        self.session = FakeSession(lambda x: x, latencies_ns=self.times(), clock=self.clock)

    @property
    def throttled(self):
        return self.clock.now_ns >= self.since_s * 1e9

    def times(self):
        while True:
            yield int(self.run_ms * MS * (1.25 if self.throttled else 1.0))

    def state(self):
        held = max(0, self.clock.now_ns - int(self.since_s * 1e9))
        return MachineState(
            cpu=None,
            gpu=Frequency(800.0 if self.throttled else 1000.0, None, 1000.0),
            gpu_memory=None,
            temperatures_c={"GPU": min(90.0, 40 + self.clock.now_ns / 2e9)},
            throttling=(("software thermal slowdown",) if self.throttled else ()) if self.reasons else None,
            held_ns={"power": 0, "thermal": held} if self.counted else None,
            at_ns=self.clock.now_ns,
        )

    def soak(self, seconds=300.0, **options):
        return measure_soak(
            self.session, POOL, batch=1, seconds=seconds, look=self.state, clock=self.clock, **options
        )


def test_throttling_shows_in_windows_drift_and_share_of_time():
    hot, shares = Hot(), []
    found = hot.soak(power=lambda: 9000.0 if hot.throttled else 12000.0, progress=shares.append)
    assert (found.ended, found.of, len(found.windows)) == ("complete", "end to end", 60)
    assert found.seconds == pytest.approx(300, abs=1)
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) >= 295
    before, after = found.windows[0], found.windows[-1]
    assert (before.p50_ns, after.p50_ns) == (20 * MS, 25 * MS)
    assert (before.state.gpu.now_mhz, after.state.gpu.now_mhz) == (1000, 800)
    assert (before.power_mw, after.power_mw) == (12000, 9000)
    assert before.state.temperatures_c["GPU"] < after.state.temperatures_c["GPU"] == 90
    assert (before.throttled, after.throttled) == (0, after.readings)
    # From the reading at the end of the first window, 5 s after the start, to the last.
    assert found.throttled_share == pytest.approx(240 / 295, abs=0.01)
    # Most windows are alike, so that the slope has no trend; the last minute is slower than the first.
    assert found.drift.ends == found.drift.ends_interval.low == pytest.approx(0.25)
    assert found.drift.change == 0
    assert found.images_per_second == pytest.approx(0.2 * 50 + 0.8 * 40, rel=0.01)


def test_without_counters_readings_are_counted_and_without_reasons_nothing_is_known():
    assert Hot(counted=False).soak().throttled_share == pytest.approx(0.8, abs=0.02)
    assert Hot(counted=False, reasons=False).soak().throttled_share is None


def test_what_is_queued_is_measured_with_transfers_and_kept_in_windows():
    clock = FakeClock()
    session = FakeTimedSession(lambda x: x, runs=[RunTimes(1, MS, 7 * MS, 2 * MS)], clock=clock)
    state = Hot().state()
    found = measure_soak(session, POOL, batch=2, seconds=60.0, look=lambda: state, clock=clock)
    assert found.of == "with transfers" and {window.p50_ns for window in found.windows} == {10 * MS}
    assert found.images_per_second == pytest.approx(200) and found.drift.interval.high == 0


@pytest.mark.parametrize("seconds", [0.6, 60, 601, 24 * 3600, 30 * 24 * 3600])
def test_a_soak_has_a_bounded_number_of_windows(seconds):
    windows = seconds / window_seconds(seconds)
    assert 12 <= round(windows, 9) <= 2880 and (window_seconds(seconds) == 5) == (60 <= seconds <= 14400)


def test_a_day_keeps_no_more_than_its_windows():
    def states():
        return sum(isinstance(each, MachineState) for each in gc.get_objects())

    before = states()
    found = Hot(4000.0).soak(24 * 3600)
    assert 1000 < len(found.windows) <= 2880 and states() - before <= len(found.windows)


@pytest.mark.parametrize(
    ("error", "ended", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", ""),
        (CnnxError("the GPU fell off the bus"), "failed", "the GPU fell"),
    ],
)
def test_what_was_measured_before_the_end_is_kept(error, ended, reason):
    hot = Hot()

    def state():
        if hot.clock.now_ns > 42e9:
            raise error
        return Hot.state(hot)

    found = measure_soak(hot.session, POOL, batch=1, seconds=300.0, look=state, clock=hot.clock)
    assert (found.ended, len(found.windows)) == (ended, 8) and found.reason.startswith(reason)
    assert found.asked_s == 300 and found.seconds == pytest.approx(40, abs=0.5) and found.drift is None
    assert gc.isenabled()
    with pytest.raises(type(error)):
        measure_soak(hot.session, POOL, batch=1, seconds=300.0, look=state, clock=hot.clock)


def test_a_soak_takes_time():
    with pytest.raises(UsageError, match="invalid duration"):
        Hot().soak(0)


def test_the_worst_of_several_states():
    first, last = Hot(since_s=0.0).state(), Hot(since_s=99.0).state()
    worst = worst_of([first, last])
    assert worst.gpu.now_mhz == 800 and worst.throttling == ("software thermal slowdown",)
    assert worst.held_ns == last.held_ns
