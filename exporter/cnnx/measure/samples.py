"""Measured latencies and what may be said of them. Raw samples are kept, none is trimmed."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cnnx.errors import UsageError

WarmUpEnd = Literal["steady", "time limit"]

# MLPerf's LoadGen, early stopping: confidence in a percentile's bound.
_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Latency:
    """Measured latencies of one network at one batch size.

    Attributes:
        samples_ns: every run counted, in the order measured.
        batch: pictures a run.
        warmup: runs before and between that are not counted.
        warmup_ended: "steady", or "time limit": the network had not settled, so the figures are doubtful.
        complete: the minimum time and number of samples were reached before the time limit.
    """

    samples_ns: tuple[int, ...]
    batch: int
    warmup: int
    warmup_ended: WarmUpEnd
    complete: bool

    @property
    def p50_ns(self) -> int | None:
        """Median."""
        return self.percentile_ns(0.50)

    @property
    def p90_ns(self) -> int | None:
        """What 90 % of runs do not exceed."""
        return self.percentile_ns(0.90)

    @property
    def p99_ns(self) -> int | None:
        """What 99 % of runs do not exceed."""
        return self.percentile_ns(0.99)

    @property
    def mean_ns(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.samples_ns)

    @property
    def coefficient_of_variation(self) -> float | None:
        """Standard deviation over mean; trtexec advises locked clocks above 0.025. None for one sample."""
        return statistics.stdev(self.samples_ns) / self.mean_ns if len(self.samples_ns) > 1 else None

    @property
    def throughput(self) -> float:
        """Pictures a second, one batch after the other."""
        return self.batch * 1e9 / self.mean_ns

    def percentile_ns(self, share: float) -> int | None:
        """The sample that `share` of all do not exceed (nearest rank).

        Returns:
            None where there are too few samples for the percentile to mean anything: fewer than
            `samples_needed(share)`, such as 64 for 0.9 and 662 for 0.99.
        """
        if len(self.samples_ns) < samples_needed(share):
            return None
        return sorted(self.samples_ns)[math.ceil(share * len(self.samples_ns)) - 1]

    def percentile_bound_ns(self, share: float) -> int | None:
        """What the true percentile does not exceed, at 99 % confidence, if runs are independent.

        LoadGen's early-stopping estimate: with t the largest number of runs over the percentile that
        would still be improbable (1 %), the t - 1 slowest are left out and the slowest other counts.
        (MLPerf inference rules, "Early Stopping".)
        """
        n = len(self.samples_ns)
        if n < samples_needed(share):
            return None
        return sorted(self.samples_ns, reverse=True)[_improbable(n, 1 - share) - 1]

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the raw samples and how they came about."""
        return {
            "samples_ns": list(self.samples_ns),
            "batch": self.batch,
            "warmup": self.warmup,
            "warmup_ended": self.warmup_ended,
            "complete": self.complete,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Latency:
        """What `as_dict` described."""
        return Latency(**{**data, "samples_ns": tuple(data["samples_ns"])})


def samples_needed(share: float) -> int:
    """Fewest samples from which a percentile may be told, by LoadGen's rule: 64 for 0.9, 662 for 0.99.

    It is the smallest n for which at most one of n runs over the true percentile has a chance of at
    most 1 %.

    Raises:
        UsageError: `share` is not strictly between 0 and 1.
    """
    if not 0 < share < 1:
        raise UsageError(f"a percentile is a share between 0 and 1, not {share}")
    rest = 1 - share
    at_most_one = (n for n in itertools.count(2) if share**n + n * rest * share ** (n - 1) <= 1 - _CONFIDENCE)
    return next(at_most_one)


def _improbable(n: int, p: float) -> int:
    """The largest t for which at most t successes in n trials of chance p have a chance of at most 1 %."""
    chance = 0.0
    for t in range(n + 1):
        logarithm = math.lgamma(n + 1) - math.lgamma(t + 1) - math.lgamma(n - t + 1)
        chance += math.exp(logarithm + t * math.log(p) + (n - t) * math.log1p(-p))
        if chance > 1 - _CONFIDENCE:
            return t - 1
    return n
