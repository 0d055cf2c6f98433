"""How steady a series of times is, and which of its percentiles another measurement would find again.

The rates at which these rules are wrong are simulated by tools/check/validity_rules.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from cnnx.measure.bootstrap import middle, resampled_quantiles
from cnnx.measure.samples import samples_needed
from cnnx.measure.verdict import PercentileVerdict

# trtexec warns at a coefficient of variation of 2.5 % (TensorRT's samples/common/sampleReporting.cpp).
UNSTEADY = 0.025
# The middle 90 % of a normal distribution are this many standard deviations wide.
_MIDDLE = 3.29
# Half of a percentile's 95 % interval may be this share of it.
_REPEATABLE = 0.05
# No clock explains a run of the same kernels that takes this many times the median.
INTERRUPTED = 2.0
# Fewer runs have no thirds to compare.
_LEAST = 30


def robust_variation(samples: Sequence[int]) -> float | None:
    """Variation of the middle 90 % of the runs; None for too few, or a median of 0.

    It is the coefficient of variation if the times are normal. A few interrupted runs, which do not move the
    median, do not count: 1 ms in one of 2,000 runs of 0.05 ms gives a coefficient of variation of 44 %.
    """
    if len(samples) < 2:
        return None
    low, median, high = np.quantile(np.asarray(samples, np.float64), [0.05, 0.5, 0.95])
    return float((high - low) / _MIDDLE / median) if median > 0 else None


def drift(samples: Sequence[int]) -> float | None:
    """By how much the median of the last third differs from that of the first; None for too few."""
    third = len(samples) // 3
    if len(samples) < _LEAST:
        return None
    first, last = statistics.median(samples[:third]), statistics.median(samples[-third:])
    return (last - first) / first if first > 0 else None


def interrupted(samples: Sequence[int]) -> int:
    """Number of runs that take more than twice the median."""
    limit = INTERRUPTED * statistics.median(samples)
    return sum(sample > limit for sample in samples)


def judge_percentile(samples: Sequence[int], percentile: float) -> PercentileVerdict:
    """Whether a percentile is supported by the samples, and is one of the network rather than of the host.

    The median is judged by the middle of the runs and by its drift, a higher percentile by the 95 % interval
    of its block bootstrap.

    Args:
        samples: at least one time, in chronological order.
        percentile: in percent, at least 50.
    """
    share = percentile / 100
    if reason := _too_few(samples, share):
        return PercentileVerdict(percentile, reason)
    return PercentileVerdict(percentile, _of_median(samples) if share == 0.5 else _of_tail(samples, share))


def judge_repeatable(samples: Sequence[int], percentile: float) -> PercentileVerdict:
    """Whether a percentile is supported by the samples, and would be found again by another measurement.

    For series that vary by nature, such as the times of streams that wait for each other.

    Args:
        samples: times in chronological order.
        percentile: in percent, at least 50.
    """
    share = percentile / 100
    return PercentileVerdict(percentile, _too_few(samples, share) or _unrepeatable(samples, share))


def _too_few(samples: Sequence[int], share: float) -> str:
    needed = max(10, samples_needed(share))
    return f"{len(samples)} samples are too few: {needed} are needed" if len(samples) < needed else ""


def _of_median(samples: Sequence[int]) -> str:
    spread, moved = robust_variation(samples), drift(samples)
    if spread is not None and spread > UNSTEADY:
        return f"the middle 90 % of the runs vary by {spread:.1%}, more than {UNSTEADY:.1%}"
    if moved is not None and abs(moved) > UNSTEADY:
        return f"the median moved by {moved:+.1%} from the first third to the last"
    return ""


def _of_tail(samples: Sequence[int], share: float) -> str:
    value = float(np.quantile(samples, share, method="inverted_cdf"))
    median = statistics.median(samples)
    if value > INTERRUPTED * median:
        return f"it is {value / median:.1f} times the median: those runs were interrupted"
    return _unrepeatable(samples, share)


def _unrepeatable(samples: Sequence[int], share: float) -> str:
    value = float(np.quantile(samples, share, method="inverted_cdf"))
    found = middle(resampled_quantiles(samples, share))
    if found.high - found.low > 2 * _REPEATABLE * value:
        interval = f"{found.low / 1e6:.4g} .. {found.high / 1e6:.4g} ms"
        return f"it is not repeatable to {_REPEATABLE:.0%}: the 95 % interval is {interval}"
    return ""
