"""Comparison of two networks that were measured in alternating turns."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from cnnx.measure.bootstrap import block_bootstrap
from cnnx.measure.samples import Latency
from cnnx.stats import Interval

Outcome = Literal["faster", "slower", "no difference shown"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ratio of the times of two networks at the same batch size.

    Attributes:
        ratio: time of the first over time of the second, as geometric mean over rounds; below 1 is faster.
        interval: 95 % confidence interval by block bootstrap over rounds.
        rounds: number of pairs of turns.
    """

    ratio: float
    interval: Interval
    rounds: int

    @property
    def outcome(self) -> Outcome:
        """Faster or slower if the interval excludes 1."""
        if self.interval.high < 1:
            return "faster"
        return "slower" if self.interval.low > 1 else "no difference shown"


def compare(one: Latency, other: Latency) -> Comparison | None:
    """Ratio of the times of adjacent turns, which cancels drift.

    Each turn counts with its median, of GPU compute if both sessions report it, else end to end.

    Returns:
        None for fewer than ten complete rounds.
    """
    both = (one, other)
    both_timed = all(latency.parts for latency in both)
    turns = [_turns(one.steady_ns if both_timed else one.samples_ns, one.turn) for one in both]
    pairs = list(zip(*turns, strict=False))
    if min((value for pair in pairs for value in pair), default=0) <= 0:
        return None
    logs = [math.log(mine / others) for mine, others in pairs]
    found = block_bootstrap(logs)
    if found is None:
        return None
    low, high = math.exp(found.mean.low), math.exp(found.mean.high)
    return Comparison(math.exp(statistics.fmean(logs)), Interval(low, high), len(pairs))


def _turns(times: tuple[int, ...], turn: int) -> list[float]:
    """Medians of complete turns."""
    return [statistics.median(times[i : i + turn]) for i in range(0, len(times) - turn + 1, turn)]
