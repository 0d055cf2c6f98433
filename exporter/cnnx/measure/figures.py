"""Statistics of a series of times: percentiles, mean, variation and confidence intervals."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.measure.bootstrap import block_bootstrap
from cnnx.measure.samples import bound_of, percentile_of, variation
from cnnx.stats import Interval


@dataclass(frozen=True, slots=True)
class Figures:
    """Statistics in nanoseconds; None if there are too few samples.

    Attributes:
        percentile: requested percentile, in percent.
        percentile_ns: value of the requested percentile.
        percentile_bound_ns: upper bound of the true percentile at 99 % confidence
            (`Latency.percentile_bound_ns`).
        p50_interval: 95 % confidence interval of the median by block bootstrap.
        mean_interval: 95 % confidence interval of the mean by block bootstrap.
        block: block length of the bootstrap.
    """

    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    percentile: float
    percentile_ns: int | None
    percentile_bound_ns: int | None
    mean_ns: float
    coefficient_of_variation: float | None
    p50_interval: Interval | None
    mean_interval: Interval | None
    block: int | None

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data for JSON."""
        return dataclasses.asdict(self)


def figures_of(samples_ns: Sequence[int], *, percentile: float = 99.0) -> Figures:
    """Compute the figures of a series.

    Args:
        samples_ns: at least one sample, in chronological order.
        percentile: additional percentile to report, in percent, between 0 and 100.
    """
    found = block_bootstrap(samples_ns)
    share = percentile / 100
    return Figures(
        p50_ns=percentile_of(samples_ns, 0.50),
        p90_ns=percentile_of(samples_ns, 0.90),
        p99_ns=percentile_of(samples_ns, 0.99),
        percentile=percentile,
        percentile_ns=percentile_of(samples_ns, share),
        percentile_bound_ns=bound_of(samples_ns, share),
        mean_ns=statistics.fmean(samples_ns),
        coefficient_of_variation=variation(samples_ns),
        p50_interval=found.median if found else None,
        mean_interval=found.mean if found else None,
        block=found.block if found else None,
    )
