"""Two networks measured in alternating turns, held against each other."""

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
    """How long one takes beside the other, at the same batch.

    Attributes:
        ratio: its time over the other's, as a geometric mean over rounds; below 1: faster.
        interval: 95 %, by block bootstrap over rounds.
        rounds: pairs of turns.
    """

    ratio: float
    interval: Interval
    rounds: int

    @property
    def outcome(self) -> Outcome:
        """Faster or slower where the interval excludes 1."""
        if self.interval.high < 1:
            return "faster"
        return "slower" if self.interval.low > 1 else "no difference shown"


def compare(one: Latency, other: Latency) -> Comparison | None:
    """The ratio of times, by turns that stood next to each other: what drifts drops out.

    Of each turn the median counts; GPU compute where both tell it, else end to end.

    Returns:
        None for fewer than ten whole rounds.
    """
    both = (one, other)
    told = all(latency.parts for latency in both)
    turns = [_turns(latency.steady_ns if told else latency.samples_ns, latency.turn) for latency in both]
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
    """Medians of whole turns."""
    return [statistics.median(times[i : i + turn]) for i in range(0, len(times) - turn + 1, turn)]
