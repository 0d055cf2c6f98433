"""Confidence intervals, significance tests and verdicts, as pure functions of counts."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from statistics import NormalDist

_Z95 = NormalDist().inv_cdf(0.975)


class Verdict(enum.Enum):
    """Outcome of a gate or of a whole validation."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_JUDGED = "not judged"

    @property
    def exit_code(self) -> int:
        """0 for passed, 1 for failed, 6 for undecided."""
        return {Verdict.PASSED: 0, Verdict.FAILED: 1}.get(self, 6)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The overall verdict: failed outranks inconclusive, which outranks not judged."""
    found = set(verdicts)
    for verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.NOT_JUDGED):
        if verdict in found:
            return verdict
    return Verdict.PASSED


def exit_code_of(
    verdicts: Iterable[Verdict], *, allow_inconclusive: bool = False, strict: bool = False
) -> int:
    """Exit code of a command that reports these verdicts.

    Args:
        verdicts: all verdicts.
        allow_inconclusive: an inconclusive gate counts as passed.
        strict: what is inconclusive or was not judged counts as failed.
    """
    found = set(verdicts)
    if strict:
        return 1 if found - {Verdict.PASSED} else 0
    return worst(found - {Verdict.INCONCLUSIVE} if allow_inconclusive else found).exit_code


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float

    def against(self, threshold: float, *, at_most: bool = False) -> Verdict:
        """Passed if the lower bound reaches the threshold, failed if the upper bound is below it.

        `at_most`: the threshold is a maximum, which the upper bound must not exceed.
        """
        low, high, limit = (
            (-self.high, -self.low, -threshold) if at_most else (self.low, self.high, threshold)
        )
        if low >= limit:
            return Verdict.PASSED
        return Verdict.FAILED if high < limit else Verdict.INCONCLUSIVE


def wilson(rate: float, n: int) -> Interval:
    """Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212).

    It is conservative for a mean of values in 0..1 that are not binary: their variance is at most that
    of binary values with the same mean.

    Args:
        rate: observed mean, 0..1.
        n: number of observations; 0 gives the interval 0..1.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z2 = _Z95 * _Z95
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if rate == 0 else max(0.0, centre - half)
    high = 1.0 if rate == 1 else min(1.0, centre + half)
    return Interval(low, high)


def difference(value: float, interval: Interval, base: float, base_interval: Interval) -> Interval:
    """95 % interval of `value - base` for two independent estimates with intervals of their own.

    MOVER (G. Y. Zou and A. Donner, Statistics in Medicine 27, 2008, 1693-1702): the distances of both bounds
    add up as squares. With Wilson's intervals it is Newcombe's tenth method for two rates (Statistics in
    Medicine 17, 1998, 873-890). For a ratio, take logarithms.
    """
    between = value - base
    return Interval(
        between - math.hypot(value - interval.low, base_interval.high - base),
        between + math.hypot(interval.high - value, base - base_interval.low),
    )


def images_to_decide(rate: float, threshold: float) -> int | None:
    """Number of observations at which Wilson's interval excludes the threshold, if the rate stays the same.

    None if ten million are not enough.
    """
    low, high = 1, 10_000_000
    if wilson(rate, high).against(threshold) is Verdict.INCONCLUSIVE:
        return None
    while low < high:
        middle = (low + high) // 2
        if wilson(rate, middle).against(threshold) is Verdict.INCONCLUSIVE:
            low = middle + 1
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class Paired:
    """Counts of labelled images by which of two classifiers was right."""

    both: int
    only_original: int
    only_engine: int
    neither: int

    def __post_init__(self) -> None:
        """Refuse counts below 0.

        Raises:
            ValueError: there is one.
        """
        for f in fields(self):
            if getattr(self, f.name) < 0:
                raise ValueError(f"{f.name} is {getattr(self, f.name)}, which is below 0")

    @property
    def n(self) -> int:
        """Number of images."""
        return self.both + self.only_original + self.only_engine + self.neither

    @property
    def original_accuracy(self) -> float:
        """Top-1 accuracy of the original."""
        return (self.both + self.only_original) / self.n

    @property
    def engine_accuracy(self) -> float:
        """Top-1 accuracy of the engine."""
        return (self.both + self.only_engine) / self.n

    def mcnemar(self) -> float:
        """Exact two-sided p-value for equal error rates (Q. McNemar, Psychometrika 12, 1947)."""
        b, c = self.only_original, self.only_engine
        if b == c:
            return 1.0
        tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
        return float(min(1.0, 2 * tail / 2 ** (b + c)))

    def margin(self, ratio: float) -> Interval:
        """Confidence interval of engine accuracy - ratio x original accuracy; the threshold is 0.

        Half a pseudo-observation is added to each of the four cells, after Agresti and Min for matched
        proportions (Statistics in Medicine 24, 2005, 729-740). The width is never zero, even if the
        classifiers never disagree.
        """
        cells = (
            (self.both, 1 - ratio),
            (self.only_original, -ratio),
            (self.only_engine, 1.0),
            (self.neither, 0.0),
        )
        total = self.n + 2
        mean = sum((count + 0.5) * value for count, value in cells) / total
        square = sum((count + 0.5) * value * value for count, value in cells) / total
        half = _Z95 * math.sqrt(max(0.0, square - mean * mean) / total)
        return Interval(mean - half, mean + half)
