"""Streams on a simulated device, whose queueing is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnx.errors import CnnxError
from cnnx.measure.load.host import THREADS
from cnnx.measure.load.streams import StreamPlan, StreamsRun, StreamTimes, measure_streams
from tests.doubles.simulated_host import MS, SharedDevice, SimulatedHost

POOL = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)


def streams(count, run_ms=10, *, fps=None, seconds=3.0, at=None, fails=None, min_samples=1):
    host = SimulatedHost()
    device = SharedDevice(host, at or (lambda _: int(run_ms * MS)), fails=fails)
    sessions = [device.open() for _ in range(count)]
    plan = StreamPlan(seconds, min_samples, 60.0, run_ms * MS, fps)
    return measure_streams(sessions, POOL, batch=1, plan=plan, host=host), sessions


@settings(max_examples=15)
@given(count=st.integers(1, 7), run_ms=st.integers(3, 20), fps=st.sampled_from([10, 30, 50]))
def test_cameras_fit_exactly_where_their_runs_fit_into_a_period(count, run_ms, fps):
    """All frames arrive at once: the last of them waits for all others, and the first for none."""
    found, _ = streams(count, run_ms, fps=fps, seconds=0.5)
    assert found.fits == (count * run_ms <= 1000 / fps)
    if found.fits:
        latencies = [set(each.latency_ns) for each in found.streams]
        assert [min(each) for each in latencies] == [run_ms * MS * (place + 1) for place in range(count)]
        assert found.images_per_second == pytest.approx(count * fps, rel=1 / fps)
        assert found.fairness == pytest.approx(1)
    assert found.frames == pytest.approx(0.5 * count * fps, abs=count)


def test_a_frame_that_waits_for_an_interrupted_one_is_late_too():
    """One run of 100 ms: back to back it is a single slow run, and three frames of a camera miss."""

    def hiccup(number):
        return (100 if number == 30 else 2) * MS

    camera, _ = streams(1, 2, fps=30, at=hiccup, seconds=2.0)
    assert camera.missed == 3 and camera.frames == 60
    assert sorted(camera.streams[0].latency_ns)[-3:] == pytest.approx(
        [37.3 * MS, 68.7 * MS, 100 * MS], abs=0.1 * MS
    )
    closed, _ = streams(1, 2, at=lambda number: hiccup(number - 100), seconds=2.0)
    assert sum(ns > 33 * MS for ns in closed.streams[0].latency_ns) == 1 and closed.missed is None


def test_an_overloaded_device_leaves_frames_over_which_no_percentile_forgets():
    found, _ = streams(2, 30, fps=30, seconds=30.0, min_samples=100)
    done = sum(len(each.latency_ns) for each in found.streams)
    assert found.frames == 1800 and done == pytest.approx(1000, abs=25)  # of 1 / 30 ms each
    assert found.missed == pytest.approx(1800, abs=5) and found.fits is False
    assert found.percentile_ns(0.5) > 5e9 and found.percentile_ns(0.99) is None
    assert found.images_per_second == pytest.approx(1000 / 30, rel=0.05)


def test_back_to_back_streams_share_the_device_evenly_and_wait_for_each_other():
    found, sessions = streams(3, 4)
    assert found.fits is None and found.fairness == pytest.approx(1)
    assert found.images_per_second == pytest.approx(250, rel=0.02)
    assert {ns for each in found.streams for ns in each.latency_ns} == {12 * MS}
    # Streams do not see the same image at the same time.
    assert [session.seen[1] for session in sessions] != [sessions[0].seen[1]] * 3


def test_streams_run_until_each_has_enough_runs_or_the_time_is_up():
    found, _ = streams(2, 20, min_samples=200, seconds=1.0)
    assert min(len(each.latency_ns) for each in found.streams) >= 200
    assert StreamPlan(1.0, 10**6, 60.0, 20 * MS).counted_ns(2) == 60e9
    assert StreamPlan(1.0, 662, 60.0, MS, fps=30).counted_ns(8) == pytest.approx(662 / 30 * 1e9, abs=9)


@pytest.mark.parametrize("fps", [None, 30])
def test_a_run_that_fails_ends_all_streams_with_its_error(fps):
    with pytest.raises(CnnxError, match="fell off the bus"):
        streams(3, 5, fails=100, fps=fps, seconds=1e4)


def test_fairness_is_jains_index():
    def run(*runs):
        return StreamsRun(tuple(StreamTimes((), each, 10**9) for each in runs), 1)

    assert run(5, 5, 5, 5).fairness == 1 and run(7, 0, 0, 0).fairness == 0.25
    assert run(3, 1).fairness == pytest.approx(16 / 20) and run(0, 0).fairness is None


def test_real_threads_run_at_the_same_time_and_an_error_is_raised_when_all_have_ended():
    import threading

    both, ended = threading.Barrier(2), []

    def worker():
        both.wait(10)  # only passes if the other runs, too
        ended.append(1)
        if len(ended) == 1:
            raise CnnxError("the first fails")

    stopped = threading.Event()
    with pytest.raises(CnnxError, match="the first fails"):
        THREADS.together([worker, worker], meanwhile=lambda: None, stop=stopped.set)
    assert len(ended) == 2 and stopped.is_set()
