"""Overhead of power sampling: times of the same work with and without the sampler."""

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

# Each side of a turn covers over 20 sampling periods, so that it contains samples even if runs are short.
_SIDE_S = 0.5
# A new sampler process is started for each turn, before the clock runs.
_START_S = 0.5
_MOST_TURNS, _FEWEST_TURNS = 10, 3
COST_LIMIT_S = 60.0
"""Approximate time limit for measuring the overhead."""


@dataclass(frozen=True, slots=True)
class SamplerCost:
    """Mean times of a run with and without the sampler, per turn, in nanoseconds.

    Means are used because a sampler that interrupts one in ten runs does not change the median.

    Attributes:
        without_ns: mean of each turn without the sampler, in chronological order.
        with_ns: mean of each turn with the sampler.
    """

    without_ns: tuple[float, ...]
    with_ns: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Time with the sampler over time without, as geometric mean over turns; 1 means no overhead."""
        return math.exp(statistics.fmean(self._logarithms()))

    @property
    def interval(self) -> Interval:
        """95 % confidence interval of the ratio by bootstrap over turns."""
        drawn = middle(resampled_means(self._logarithms(), block=1))
        return Interval(math.exp(drawn.low), math.exp(drawn.high))

    def as_dict(self) -> dict[str, Any]:
        """The times as plain data."""
        return {"without_ns": list(self.without_ns), "with_ns": list(self.with_ns)}

    def _logarithms(self) -> list[float]:
        pairs = zip(self.with_ns, self.without_ns, strict=True)
        return [math.log(loaded / free) for loaded, free in pairs]


def cost_turns(run_s: float) -> int:
    """Number of turns to measure for runs of this duration: at most 10, limited by `COST_LIMIT_S`.

    Returns 0 if too few turns fit to be meaningful.
    """
    fitting = int(COST_LIMIT_S / _turn_s(run_s))
    return min(fitting, _MOST_TURNS) if fitting >= _FEWEST_TURNS else 0


def cost_seconds(run_s: float) -> float:
    """Approximate duration of the overhead measurement for runs of this duration."""
    return cost_turns(run_s) * _turn_s(run_s)


def _turn_s(run_s: float) -> float:
    """Duration of a turn: two sides, each with an uncounted run and one that may start at its end."""
    return 2 * (max(_SIDE_S, run_s) + run_s) + _START_S


def sampler_cost(
    run: Callable[[], object],
    sampler: Callable[[], Sampler],
    *,
    turns: int = _MOST_TURNS,
    clock: Clock = time.perf_counter_ns,
    progress: Callable[[int, int], object] = lambda _done, _turns: None,
) -> SamplerCost:
    """Time the same work with and without the sampler; the order reverses each turn to cancel drift.

    Each side lasts half a second or one run, whichever is longer, after one uncounted run.

    Args:
        run: the work, such as one inference.
        sampler: creates a new sampler for each turn.
        turns: number of turns, 2 or more; see `cost_turns`.
        clock: monotonic clock in nanoseconds.
        progress: called with the number of completed turns and of all turns.

    Raises:
        UsageError: fewer than two turns.
        EnvironmentLacks: the sampler did not start, or ended.
    """
    if turns < 2:
        raise UsageError(
            f"cannot measure the sampler's overhead in {turns} turns", hint="use 2 turns or more"
        )
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
