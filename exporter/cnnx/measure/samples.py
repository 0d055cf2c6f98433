"""Measured latencies and what may be said of them. Raw samples are kept, none is trimmed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from cnnx.errors import UsageError
from cnnx.runtimes import RunTimes
from cnnx.schema import Count, Positive

WarmUpEnd = Literal["steady", "time limit"]
Samples = Annotated[tuple[Count, ...], Meta(min_length=1, description="a list of at least one time")]

# MLPerf's LoadGen, early stopping: confidence in a percentile's bound.
_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where the time of every counted run went, in the order measured; see `cnnx.runtimes.RunTimes`.

    Attributes:
        enqueue_ns: the host's, queueing the kernels.
        h2d_ns: the GPU's, input to the device.
        compute_ns: the GPU's, kernels.
        d2h_ns: the GPU's, outputs to the host.
    """

    enqueue_ns: tuple[Count, ...]
    h2d_ns: tuple[Count, ...]
    compute_ns: tuple[Count, ...]
    d2h_ns: tuple[Count, ...]

    @property
    def latency_ns(self) -> tuple[int, ...]:
        """With transfers: H2D + compute + D2H of each run, trtexec's "Latency"."""
        return tuple(map(sum, zip(self.h2d_ns, self.compute_ns, self.d2h_ns, strict=True)))

    @staticmethod
    def of(runs: Iterable[RunTimes]) -> Breakdown:
        """Run by run -> part by part."""
        runs = tuple(runs)
        return Breakdown(
            *(tuple(getattr(run, f.name) for run in runs) for f in dataclasses.fields(Breakdown))
        )


@dataclass(frozen=True, slots=True)
class Latency:
    """Measured latencies of one network at one batch size.

    Attributes:
        samples_ns: every run counted, in the order measured, end to end by the host's clock: pictures in
            host memory to outputs there. The next run begins when the last has ended.
        batch: pictures a run.
        warmup: runs before and between that are not counted.
        warmup_ended: "steady", or "time limit": the network had not settled, so the figures are doubtful.
        complete: the minimum time and number of samples were reached before the time limit.
        turn: runs in a row before another session had its turn.
        parts: where the time went; None: the session does not tell.
    """

    samples_ns: Samples
    batch: Positive
    warmup: Count
    warmup_ended: WarmUpEnd
    complete: bool
    turn: Count = 10
    parts: Breakdown | None = None

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
        return variation(self.samples_ns)

    @property
    def series(self) -> dict[str, tuple[int, ...]]:
        """What figures are given of, by name: with and without transfers where the session tells them."""
        if self.parts is None:
            return {"end to end": self.samples_ns}
        return {
            "with transfers": self.parts.latency_ns,
            "GPU compute": self.parts.compute_ns,
            "end to end": self.samples_ns,
        }

    @property
    def steady_ns(self) -> tuple[int, ...]:
        """What variation is judged by and networks are compared by: GPU compute where that is known."""
        return self.parts.compute_ns if self.parts else self.samples_ns

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
        return percentile_of(self.samples_ns, share)

    def percentile_bound_ns(self, share: float) -> int | None:
        """What the true percentile does not exceed, at 99 % confidence, if runs are independent.

        LoadGen's early-stopping estimate: with t the largest number of runs over the percentile that
        would still be improbable (1 %), the t - 1 slowest are left out and the slowest other counts.
        (MLPerf inference rules, "Early Stopping".)
        """
        return bound_of(self.samples_ns, share)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the raw samples and how they came about."""
        return {
            "samples_ns": list(self.samples_ns),
            "batch": self.batch,
            "warmup": self.warmup,
            "warmup_ended": self.warmup_ended,
            "complete": self.complete,
            "turn": self.turn,
            "parts": {name: list(times) for name, times in dataclasses.asdict(self.parts).items()}
            if self.parts
            else None,
        }


def percentile_of(samples: Sequence[int], share: float) -> int | None:
    """Nearest rank; None where there are fewer than `samples_needed(share)`."""
    if len(samples) < samples_needed(share):
        return None
    return sorted(samples)[math.ceil(share * len(samples)) - 1]


def bound_of(samples: Sequence[int], share: float) -> int | None:
    """See `Latency.percentile_bound_ns`."""
    if len(samples) < samples_needed(share):
        return None
    return sorted(samples, reverse=True)[_improbable(len(samples), 1 - share) - 1]


def variation(samples: Sequence[int]) -> float | None:
    """Coefficient of variation: standard deviation over mean; None for one sample, or all zero."""
    mean = statistics.fmean(samples)
    return statistics.stdev(samples) / mean if len(samples) > 1 and mean > 0 else None


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
