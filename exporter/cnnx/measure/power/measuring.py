"""Energy measurements: idle, warm-up until power is steady, load, and idle again.

On a Jetson, tegrastats reads the same rails for some seconds of steady load before the counted load.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from cnnx.errors import EnvironmentLacks, UsageError
from cnnx.measure.power.driving import Load, drive
from cnnx.measure.power.energy import EnergyMeasurement
from cnnx.measure.power.sampler import Sampler
from cnnx.measure.power.sensors.ina import NAME as INA
from cnnx.measure.power.sensors.sensor import Clock, Sleep, Span, monotonic_ns
from cnnx.measure.power.sensors.tegrastats import Beside, during
from cnnx.measure.power.trace import Trace
from cnnx.measure.samples import WarmUpEnd

_LEAST_LOAD_S = 30.0
_LEAST_IDLE_S = 5.0
# Steady means that the mean powers of two successive 10 s windows are within 2 % of each other.
_STRETCH_NS = 10_000_000_000
_LEAST_WARMUP_S = 2 * _STRETCH_NS / 1e9
_STEADY = 0.02
# tegrastats prints every 0.1 s, its fastest rate.
_BESIDE_S = 5.0
_EVERY = ("--interval", "100")
# Maximum delay until samples appear in the file.
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Durations of the phases of a measurement.

    Attributes:
        load_s: duration of the counted load, 30 or more.
        idle_s: duration of each idle phase, 5 or more.
        rate: calls of the load per second, such as 30 for a camera; None for back to back.
        warmup_s: maximum time until power is steady.
        settle_s: time between load and idle phase for caches, clocks and averaging sensors to settle; the
            averaging window of the sensor is added.

    Raises:
        UsageError: a duration is too short, or the rate is not positive.
    """

    load_s: float = 30.0
    idle_s: float = 10.0
    rate: float | None = None
    warmup_s: float = 120.0
    settle_s: float = 2.0

    def __post_init__(self) -> None:
        if self.load_s < _LEAST_LOAD_S or self.idle_s < _LEAST_IDLE_S:
            raise UsageError(
                f"a load of {self.load_s:g} s and idle phases of {self.idle_s:g} s are too short for energy",
                hint=f"use at least {_LEAST_LOAD_S:g} s of load and idle phases of {_LEAST_IDLE_S:g} s each",
            )
        if self.rate is not None and not 0 < self.rate < math.inf:
            what = f"invalid rate {self.rate}: expected a positive, finite number"
            raise UsageError(what, hint="use a rate such as 30, or none to run back to back")

    @property
    def seconds(self) -> tuple[float, float]:
        """Minimum and approximate maximum duration, without the sensor's window and tegrastats."""
        counted = 2 * (self.settle_s + self.idle_s) + self.load_s
        return counted + min(_LEAST_WARMUP_S, self.warmup_s), counted + self.warmup_s


def measure_energy(
    load: Load,
    sampler: Sampler,
    *,
    plan: Plan | None = None,
    clock: Clock = monotonic_ns,
    sleep: Sleep = time.sleep,
    tegrastats: str | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> EnergyMeasurement:
    """Measure the energy of a load, which should not be timed for latency at the same time.

    Args:
        load: runs once, waits for the result, and returns the number of inferences.
        sampler: sampler of the sensor; entered and exited here.
        plan: durations of the phases.
        clock: clock of the sampler's timestamps, in nanoseconds.
        sleep: waits for a number of seconds or longer.
        tegrastats: path of tegrastats, to compare its readings of the board for some seconds; None to skip.
        progress: called with the completed share, 0..1, about once a second under load and not while idle.

    Raises:
        EnvironmentLacks: the sampler ended, or its samples do not cover the measurement.
        UsageError: the load does not return its number of inferences.
    """
    plan = plan or Plan()
    with sampler:
        sensor = sampler.trace().sensor
        window_s, program = sensor.window_ns / 1e9, tegrastats if sensor.name == INA else None
        settle_s = plan.settle_s + window_s
        all_s = plan.seconds[0] + 2 * window_s + (_BESIDE_S if program else 0)
        reporter = _Progress(all_s, sampler, clock, progress)
        reporter.part(settle_s + plan.idle_s)
        sleep(settle_s)
        before = _rest(plan, reporter, clock, sleep)
        reporter.part(_LEAST_WARMUP_S)
        warmup, ended = _warm_up(load, plan, reporter, clock, sleep)
        beside = _compare_tegrastats(program, load, plan, reporter, clock, sleep) if program else None
        reporter.part(plan.load_s)
        driven = drive(
            load, seconds=plan.load_s, rate=plan.rate, check=reporter.check, clock=clock, sleep=sleep
        )
        reporter.part(settle_s + plan.idle_s)
        sleep(settle_s)
        after = _rest(plan, reporter, clock, sleep)
        trace = _reaching(sampler, after.end_ns, sleep)
    return EnergyMeasurement(trace, before, warmup, ended, driven, after, plan.rate, beside)


class _Progress:
    """Checks the sampler and reports the progress of a measurement with several phases.

    Args:
        seconds: total duration of all phases with the shortest possible warm-up.
    """

    def __init__(
        self, seconds: float, sampler: Sampler, clock: Clock, progress: Callable[[float], None]
    ) -> None:
        self.sampler, self._clock, self._progress = sampler, clock, progress
        self._all, self._done, self._part = seconds, 0.0, 0.0
        self._start = clock()

    def part(self, seconds: float) -> None:
        """Start a phase with an expected duration; earlier phases are complete."""
        self._done += self._part
        self._part, self._start = seconds, self._clock()
        self._progress(min(1.0, self._done / self._all))

    def check(self) -> None:
        """Raise EnvironmentLacks if the sampler ended; else report progress."""
        self.sampler.check()
        elapsed = (self._clock() - self._start) / 1e9
        self._progress(min(1.0, (self._done + min(elapsed, self._part)) / self._all))


def _rest(plan: Plan, reporter: _Progress, clock: Clock, sleep: Sleep) -> Span:
    """Idle without interruption; reporting progress would wake the CPU."""
    start = clock()
    sleep(plan.idle_s)
    reporter.check()
    return Span(start, clock())


def _warm_up(
    load: Load, plan: Plan, reporter: _Progress, clock: Clock, sleep: Sleep
) -> tuple[Span, WarmUpEnd]:
    start = clock()
    ended: WarmUpEnd = "time limit"
    while clock() - start < plan.warmup_s * 1e9:
        drive(load, seconds=1.0, rate=plan.rate, check=reporter.check, clock=clock, sleep=sleep)
        reporter.check()
        if _is_steady(reporter.sampler.trace(), start):
            ended = "steady"
            break
    return Span(start, clock()), ended


def _compare_tegrastats(
    program: str, load: Load, plan: Plan, reporter: _Progress, clock: Clock, sleep: Sleep
) -> Beside:
    """Run tegrastats outside the counted load, as it uses power itself."""
    reporter.part(_BESIDE_S)
    driven, printed = during(
        lambda: drive(
            load, seconds=_BESIDE_S, rate=plan.rate, check=reporter.check, clock=clock, sleep=sleep
        ),
        program=(program, *_EVERY),
    )
    return Beside.of(driven.span, printed)


def _is_steady(trace: Trace, since_ns: int) -> bool:
    end = trace.samples[-1].stamp_ns
    if end - 2 * _STRETCH_NS < since_ns:
        return False
    # Without a total, the sum of all rails still shows whether power is steady.
    rails = trace.sensor.total.rails or tuple(rail.name for rail in trace.sensor.rails)
    try:
        earlier, later = trace.powers_mw(rails, end - 2 * _STRETCH_NS, end, window_ns=_STRETCH_NS)
    except UsageError:  # readings at the end failed; check again in a second
        return False
    return abs(later - earlier) <= _STEADY * abs(earlier)


def _reaching(sampler: Sampler, end_ns: int, sleep: Sleep) -> Trace:
    """Wait until the trace covers the measurement, and return it."""
    for _ in range(int(_PATIENCE_S / 0.1)):
        trace = sampler.trace()
        if trace.samples and trace.samples[-1].stamp_ns > end_ns:
            return trace
        sleep(0.1)
    raise EnvironmentLacks(
        f"the power sampler hangs: no sample in the last {_PATIENCE_S:g} s",
        where=f"power sensor {trace.sensor.name}",
        hint="measure again; if this persists, the driver of the sensor may hang, so choose another sensor",
    )
