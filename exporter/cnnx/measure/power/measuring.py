"""An energy measurement, in a pass of its own: idle, warm-up to a plateau, load, idle again.

On a Jetson tegrastats reads the same rails for some seconds of the plateau, before what counts.
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
# Warm: two successive stretches of 10 s whose mean powers are within 2 % of each other.
_STRETCH_NS = 10_000_000_000
_LEAST_WARMUP_S = 2 * _STRETCH_NS / 1e9
_STEADY = 0.02
# tegrastats prints every 0.1 s, as fast as it can be asked to.
_BESIDE_S = 5.0
_EVERY = ("--interval", "100")
# How long samples may take to reach the file after they were taken.
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part of a measurement takes.

    Attributes:
        load_s: of the load that counts, 30 or more.
        idle_s: of rest before and after, each 5 or more.
        rate: calls of the load a second, such as a camera's 30; None: back to back.
        warmup_s: patience for the plateau.
        settle_s: between load and the rest after it, in which caches, clocks and averaging sensors
            come down; a sensor's own window is added.

    Raises:
        UsageError: a time too short, or a rate that is not positive.
    """

    load_s: float = 30.0
    idle_s: float = 10.0
    rate: float | None = None
    warmup_s: float = 120.0
    settle_s: float = 2.0

    def __post_init__(self) -> None:
        if self.load_s < _LEAST_LOAD_S or self.idle_s < _LEAST_IDLE_S:
            raise UsageError(
                f"energy needs a load of {_LEAST_LOAD_S:g} s or more and rests of {_LEAST_IDLE_S:g} s or more"
            )
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise UsageError(f"a rate is positive and finite, not {self.rate}")

    @property
    def seconds(self) -> tuple[float, float]:
        """The least that it lasts, and about the most; a sensor's window and tegrastats come on top."""
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
    """Measure what a load takes; it should not be timed for latency meanwhile.

    Args:
        load: runs once, waits for the result, returns how many inferences that was.
        sampler: of the sensor; entered and left here.
        plan: how long each part takes.
        clock: nanoseconds, that of the sampler's stamps.
        sleep: waits that many seconds; may wait longer.
        tegrastats: the program, to read a board's monitors beside us for a while; None: not.
        progress: announcer the share done, 0..1, about once a second under load and not at rest.

    Raises:
        EnvironmentLacks: the sampler died, or its samples do not reach over the measurement.
        UsageError: the load does not say how many inferences it did.
    """
    plan = plan or Plan()
    with sampler:
        sensor = sampler.trace().sensor
        window_s, program = sensor.window_ns / 1e9, tegrastats if sensor.name == INA else None
        settle_s = plan.settle_s + window_s
        all_s = plan.seconds[0] + 2 * window_s + (_BESIDE_S if program else 0)
        announcer = _Announcer(all_s, sampler, clock, progress)
        announcer.part(settle_s + plan.idle_s)
        sleep(settle_s)
        before = _rest(plan, announcer, clock, sleep)
        announcer.part(_LEAST_WARMUP_S)
        warmup, ended = _warm_up(load, plan, announcer, clock, sleep)
        beside = _beside(program, load, plan, announcer, clock, sleep) if program else None
        announcer.part(plan.load_s)
        driven = drive(
            load, seconds=plan.load_s, rate=plan.rate, check=announcer.check, clock=clock, sleep=sleep
        )
        announcer.part(settle_s + plan.idle_s)
        sleep(settle_s)
        after = _rest(plan, announcer, clock, sleep)
        trace = _reaching(sampler, after.end_ns, sleep)
    return EnergyMeasurement(trace, before, warmup, ended, driven, after, plan.rate, beside)


class _Announcer:
    """Looks after the sampler, and tells how far a measurement of several parts is.

    Args:
        seconds: of all parts together, a warm-up as short as it can be.
    """

    def __init__(
        self, seconds: float, sampler: Sampler, clock: Clock, progress: Callable[[float], None]
    ) -> None:
        self.sampler, self._clock, self._progress = sampler, clock, progress
        self._all, self._done, self._part = seconds, 0.0, 0.0
        self._start = clock()

    def part(self, seconds: float) -> None:
        """A part begins that should take so long; those before it are over."""
        self._done += self._part
        self._part, self._start = seconds, self._clock()
        self._progress(min(1.0, self._done / self._all))

    def check(self) -> None:
        """Raise EnvironmentLacks if nothing is sampled any more; else tell."""
        self.sampler.check()
        elapsed = (self._clock() - self._start) / 1e9
        self._progress(min(1.0, (self._done + min(elapsed, self._part)) / self._all))


def _rest(plan: Plan, announcer: _Announcer, clock: Clock, sleep: Sleep) -> Span:
    """In one piece: waking up in between, to tell of progress, would be no rest."""
    start = clock()
    sleep(plan.idle_s)
    announcer.check()
    return Span(start, clock())


def _warm_up(
    load: Load, plan: Plan, announcer: _Announcer, clock: Clock, sleep: Sleep
) -> tuple[Span, WarmUpEnd]:
    start = clock()
    ended: WarmUpEnd = "time limit"
    while clock() - start < plan.warmup_s * 1e9:
        drive(load, seconds=1.0, rate=plan.rate, check=announcer.check, clock=clock, sleep=sleep)
        announcer.check()
        if _is_steady(announcer.sampler.trace(), start):
            ended = "steady"
            break
    return Span(start, clock()), ended


def _beside(
    program: str, load: Load, plan: Plan, announcer: _Announcer, clock: Clock, sleep: Sleep
) -> Beside:
    """Apart from the load that counts: tegrastats takes power, too."""
    announcer.part(_BESIDE_S)
    driven, printed = during(
        lambda: drive(
            load, seconds=_BESIDE_S, rate=plan.rate, check=announcer.check, clock=clock, sleep=sleep
        ),
        program=(program, *_EVERY),
    )
    return Beside.of(driven.span, printed)


def _is_steady(trace: Trace, since_ns: int) -> bool:
    end = trace.samples[-1].stamp_ns
    if end - 2 * _STRETCH_NS < since_ns:
        return False
    # Where there is no total, all rails together still tell when a board is warm.
    rails = trace.sensor.total.rails or tuple(rail.name for rail in trace.sensor.rails)
    try:
        earlier, later = trace.powers_mw(rails, end - 2 * _STRETCH_NS, end, window_ns=_STRETCH_NS)
    except UsageError:  # readings at the end failed: see again in a second
        return False
    return abs(later - earlier) <= _STEADY * abs(earlier)


def _reaching(sampler: Sampler, end_ns: int, sleep: Sleep) -> Trace:
    """The trace, once it reaches over the measurement."""
    for _ in range(int(_PATIENCE_S / 0.1)):
        trace = sampler.trace()
        if trace.samples and trace.samples[-1].stamp_ns > end_ns:
            return trace
        sleep(0.1)
    raise EnvironmentLacks(
        f"the power sampler hangs: no sample in the last {_PATIENCE_S:g} s",
        mend="measure again; if it stays so, the sensor's driver may hang",
    )
