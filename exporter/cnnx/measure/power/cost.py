"""What sampling itself costs: the same work timed with the sampler and without, in alternating turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnx.errors import UsageError
from cnnx.measure.bootstrap import middle, resampled_means
from cnnx.measure.power.sampler import Sampler
from cnnx.measure.power.sensors import Clock
from cnnx.stats import Interval


@dataclass(frozen=True, slots=True)
class SamplerCost:
    """Times of the same work with and without a sampler, turn by turn.

    Attributes:
        without_ns: one tuple a turn, in the order measured.
        with_ns: the same, with the sampler running.
    """

    without_ns: tuple[tuple[int, ...], ...]
    with_ns: tuple[tuple[int, ...], ...]

    @property
    def ratio(self) -> float:
        """Median time with the sampler over that without, as the geometric mean over turns; 1: no cost."""
        return math.exp(statistics.fmean(self._logarithms()))

    @property
    def interval(self) -> Interval:
        """Of the ratio, 95 %: bootstrap over turns, each of which has both sides."""
        drawn = middle(resampled_means(self._logarithms(), block=1))
        return Interval(math.exp(drawn.low), math.exp(drawn.high))

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the raw times."""
        return {
            "without_ns": [list(turn) for turn in self.without_ns],
            "with_ns": [list(turn) for turn in self.with_ns],
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> SamplerCost:
        """What `as_dict` described."""
        return SamplerCost(**{key: tuple(tuple(turn) for turn in turns) for key, turns in data.items()})

    def _logarithms(self) -> list[float]:
        pairs = zip(self.with_ns, self.without_ns, strict=True)
        return [math.log(statistics.median(loaded) / statistics.median(free)) for loaded, free in pairs]


def sampler_cost(
    run: Callable[[], object],
    sampler: Callable[[], Sampler],
    *,
    turns: int = 10,
    runs: int = 50,
    clock: Clock = time.perf_counter_ns,
) -> SamplerCost:
    """Time the same work with the sampler on and off. The order reverses each turn, so drift hits both alike.

    Args:
        run: the work, such as one inference.
        sampler: makes a sampler, for each turn anew.
        turns: each with both sides; 2 or more.
        runs: timed on each side of a turn; one before them is not counted.
        clock: nanoseconds, monotonic.

    Raises:
        UsageError: fewer than two turns or no runs.
        EnvironmentLacks: the sampler did not start, or died.
    """
    if turns < 2 or runs < 1:
        raise UsageError("the sampler's cost needs at least two turns and one run in each")
    sides: dict[bool, list[tuple[int, ...]]] = {False: [], True: []}
    for turn in range(turns):
        for sampled in (False, True) if turn % 2 == 0 else (True, False):
            if not sampled:
                sides[False].append(_timed(run, runs, clock))
                continue
            with sampler() as running:
                sides[True].append(_timed(run, runs, clock))
                running.check()
    return SamplerCost(without_ns=tuple(sides[False]), with_ns=tuple(sides[True]))


def _timed(run: Callable[[], object], runs: int, clock: Clock) -> tuple[int, ...]:
    run()
    taken = []
    for _ in range(runs):
        start = clock()
        run()
        taken.append(clock() - start)
    return tuple(taken)
