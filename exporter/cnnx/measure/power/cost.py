"""What sampling itself costs: the same work timed with the sampler and without, in alternating turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cnnx.errors import UsageError
from cnnx.measure.bootstrap import middle, resampled_means
from cnnx.measure.power.sampler import Sampler
from cnnx.measure.power.sensors.sensor import Clock
from cnnx.stats import Interval

# A side of a turn: over 20 periods of the sampler, so that samples fall into it however short a run is.
_SIDE_S = 0.5
# A sampler's process starts anew for each turn, before the clock runs.
_START_S = 0.5
_MOST_TURNS, _FEWEST_TURNS = 10, 3
COST_LIMIT_S = 60.0
"""About the longest that a cost is measured for."""


@dataclass(frozen=True, slots=True)
class SamplerCost:
    """Mean times of a run with and without a sampler, turn by turn, in nanoseconds.

    Means, as a sampler that interrupts one run in ten does not move their median.

    Attributes:
        without_ns: one a turn, in the order measured.
        with_ns: the same, with the sampler running.
    """

    without_ns: tuple[float, ...]
    with_ns: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Time with the sampler over that without, as the geometric mean over turns; 1: no cost."""
        return math.exp(statistics.fmean(self._logarithms()))

    @property
    def interval(self) -> Interval:
        """Of the ratio, 95 %: bootstrap over turns, each of which has both sides."""
        drawn = middle(resampled_means(self._logarithms(), block=1))
        return Interval(math.exp(drawn.low), math.exp(drawn.high))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"without_ns": list(self.without_ns), "with_ns": list(self.with_ns)}

    def _logarithms(self) -> list[float]:
        pairs = zip(self.with_ns, self.without_ns, strict=True)
        return [math.log(loaded / free) for loaded, free in pairs]


def cost_turns(run_s: float) -> int:
    """How many turns are measured of work that takes so long: what fits into `COST_LIMIT_S`, at most 10.

    0: so few would fit that they say nothing.
    """
    fitting = int(COST_LIMIT_S / _turn_s(run_s))
    return min(fitting, _MOST_TURNS) if fitting >= _FEWEST_TURNS else 0


def cost_seconds(run_s: float) -> float:
    """About how long the cost of sampling such work is measured for."""
    return cost_turns(run_s) * _turn_s(run_s)


def _turn_s(run_s: float) -> float:
    """Both sides, each with a run that is not counted and one that may begin at its very end."""
    return 2 * (max(_SIDE_S, run_s) + run_s) + _START_S


def sampler_cost(
    run: Callable[[], object],
    sampler: Callable[[], Sampler],
    *,
    turns: int = _MOST_TURNS,
    clock: Clock = time.perf_counter_ns,
    progress: Callable[[int, int], object] = lambda _done, _turns: None,
) -> SamplerCost:
    """Time the same work with the sampler on and off. The order reverses each turn, so drift hits both alike.

    A side lasts half a second, or one run where that takes longer; one run before it is not counted.

    Args:
        run: the work, such as one inference.
        sampler: makes a sampler, for each turn anew.
        turns: each with both sides; 2 or more. See `cost_turns`.
        clock: nanoseconds, monotonic.
        progress: told how many turns are done, of how many.

    Raises:
        UsageError: fewer than two turns.
        EnvironmentLacks: the sampler did not start, or died.
    """
    if turns < 2:
        raise UsageError("the sampler's cost needs at least two turns")
    sides: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(turns):
        progress(turn, turns)
        for sampled in (False, True) if turn % 2 == 0 else (True, False):
            if not sampled:
                sides[False].append(_mean_ns(run, clock))
                continue
            with sampler() as running:
                sides[True].append(_mean_ns(run, clock))
                running.check()
    progress(turns, turns)
    return SamplerCost(without_ns=tuple(sides[False]), with_ns=tuple(sides[True]))


def _mean_ns(run: Callable[[], object], clock: Clock) -> float:
    run()
    start, runs = clock(), 0
    while True:
        run()
        runs += 1
        if (taken := clock() - start) >= _SIDE_S * 1e9:
            return taken / runs
