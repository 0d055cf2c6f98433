"""Measured latencies and their statistics. All raw samples are kept."""

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

# Confidence of percentile bounds, from the early stopping of MLPerf's LoadGen.
_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Time breakdown of every counted run, in chronological order; see `cnnx.runtimes.RunTimes`.

    Attributes:
        enqueue_ns: host time to enqueue the kernels.
        h2d_ns: GPU time to copy inputs to the device.
        compute_ns: GPU time of the kernels.
        d2h_ns: GPU time to copy outputs to the host.
    """

    enqueue_ns: tuple[Count, ...]
    h2d_ns: tuple[Count, ...]
    compute_ns: tuple[Count, ...]
    d2h_ns: tuple[Count, ...]

    @property
    def latency_ns(self) -> tuple[int, ...]:
        """Latency with transfers, H2D + compute + D2H of each run; trtexec's "Latency"."""
        return tuple(map(sum, zip(self.h2d_ns, self.compute_ns, self.d2h_ns, strict=True)))

    @staticmethod
    def of(runs: Iterable[RunTimes]) -> Breakdown:
        """Create a breakdown from the times of each run."""
        runs = tuple(runs)
        return Breakdown(
            *(tuple(getattr(run, f.name) for run in runs) for f in dataclasses.fields(Breakdown))
        )


@dataclass(frozen=True, slots=True)
class Latency:
    """Measured latencies of one network at one batch size.

    Attributes:
        samples_ns: end-to-end time of every counted run on the host clock, in chronological order, from
            images in host memory to outputs in host memory. Each run starts after the previous one ends. With
            `parts`, these are runs of their own, in a shorter pass after the others.
        batch: images per run.
        warmup: number of uncounted runs, including those between turns.
        warmup_ended: "steady", or "time limit" if latencies had not settled and are doubtful.
        complete: whether the minimum time and number of samples were reached before the time limit.
        turn: counted runs per turn when sessions alternate.
        parts: time breakdown of runs that were queued two deep; None if the session does not report it.
        queued_ns: host time of each turn of those runs, from filled buffers; None as `parts`, and in older
            records, whose runs were not queued.
    """

    samples_ns: Samples
    batch: Positive
    warmup: Count
    warmup_ended: WarmUpEnd
    complete: bool
    turn: Count = 10
    parts: Breakdown | None = None
    queued_ns: Samples | None = None

    @property
    def p50_ns(self) -> int | None:
        """Median."""
        return self.percentile_ns(0.50)

    @property
    def p90_ns(self) -> int | None:
        """90th percentile."""
        return self.percentile_ns(0.90)

    @property
    def p99_ns(self) -> int | None:
        """99th percentile."""
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
        """Series to report by name; with and without transfers if the session reports a breakdown."""
        if self.parts is None:
            return {"end to end": self.samples_ns}
        return {
            "with transfers": self.parts.latency_ns,
            "GPU compute": self.parts.compute_ns,
            "end to end": self.samples_ns,
        }

    @property
    def main_ns(self) -> tuple[int, ...]:
        """The main series, which is the first of `series`."""
        return next(iter(self.series.values()))

    @property
    def steady_ns(self) -> tuple[int, ...]:
        """Series for variation and comparisons: GPU compute if known, else end to end."""
        return self.parts.compute_ns if self.parts else self.samples_ns

    @property
    def throughput(self) -> float:
        """Images per second: from filled buffers, with the next run queued, if known; else end to end."""
        if self.parts is not None and self.queued_ns is not None:
            return self.batch * len(self.parts.compute_ns) * 1e9 / max(1, sum(self.queued_ns))
        return self.batch * 1e9 / self.mean_ns

    def percentile_ns(self, share: float) -> int | None:
        """Percentile by nearest rank.

        Returns:
            None for fewer than `samples_needed(share)` samples, such as 64 for 0.9 and 662 for 0.99.
        """
        return percentile_of(self.samples_ns, share)

    def percentile_bound_ns(self, share: float) -> int | None:
        """Upper bound of the true percentile at 99 % confidence, for independent runs.

        LoadGen's early-stopping estimate: let t be the largest number of runs above the percentile that is
        still improbable (1 %). The t - 1 slowest runs are dropped, and the slowest remaining run is the
        bound. (MLPerf inference rules, "Early Stopping".)
        """
        return bound_of(self.samples_ns, share)

    def as_dict(self) -> dict[str, Any]:
        """The raw samples and the conditions of their measurement as plain data."""
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
            "queued_ns": list(self.queued_ns) if self.queued_ns is not None else None,
        }


def percentile_of(samples: Sequence[int], share: float) -> int | None:
    """Percentile by nearest rank; None for fewer than `samples_needed(share)` samples."""
    if len(samples) < samples_needed(share):
        return None
    return sorted(samples)[math.ceil(share * len(samples)) - 1]


def bound_of(samples: Sequence[int], share: float) -> int | None:
    """Upper bound of a percentile; see `Latency.percentile_bound_ns`."""
    if len(samples) < samples_needed(share):
        return None
    return sorted(samples, reverse=True)[_improbable(len(samples), 1 - share) - 1]


def variation(samples: Sequence[int]) -> float | None:
    """Coefficient of variation: standard deviation over mean; None for one sample or a mean of 0."""
    mean = statistics.fmean(samples)
    return statistics.stdev(samples) / mean if len(samples) > 1 and mean > 0 else None


def samples_needed(share: float) -> int:
    """Minimum number of samples to report a percentile by LoadGen's rule: 64 for 0.9, 662 for 0.99.

    It is the smallest n for which the probability of at most one in n runs above the true percentile is at
    most 1 %.

    Raises:
        UsageError: `share` is not strictly between 0 and 1.
    """
    if not 0 < share < 1:
        what = f"invalid percentile {100 * share:g}: expected a value between 0 and 100"
        raise UsageError(what, hint="use a percentile such as 90, 99 or 99.9")
    rest = 1 - share
    at_most_one = (n for n in itertools.count(2) if share**n + n * rest * share ** (n - 1) <= 1 - _CONFIDENCE)
    return next(at_most_one)


def _improbable(n: int, p: float) -> int:
    """The largest t such that at most t successes in n trials with probability p are improbable (1 %)."""
    chance = 0.0
    for t in range(n + 1):
        logarithm = math.lgamma(n + 1) - math.lgamma(t + 1) - math.lgamma(n - t + 1)
        chance += math.exp(logarithm + t * math.log(p) + (n - t) * math.log1p(-p))
        if chance > 1 - _CONFIDENCE:
            return t - 1
    return n
