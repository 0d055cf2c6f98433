"""Intervals, tests and the three-way verdict. Pure functions of counts."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

_Z95 = NormalDist().inv_cdf(0.975)


class Verdict(enum.Enum):
    """What a gate, and a whole validation, can come to."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_JUDGED = "not judged"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 6 not decided."""
        return {Verdict.PASSED: 0, Verdict.FAILED: 1}.get(self, 6)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """One failure fails the whole; else one open question leaves it open."""
    found = set(verdicts)
    for verdict in (Verdict.FAILED, Verdict.NOT_JUDGED, Verdict.INCONCLUSIVE):
        if verdict in found:
            return verdict
    return Verdict.PASSED


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float

    def against(self, threshold: float) -> Verdict:
        """Passed when the lower bound clears the threshold, failed when the upper one misses it."""
        if self.low >= threshold:
            return Verdict.PASSED
        return Verdict.FAILED if self.high < threshold else Verdict.INCONCLUSIVE


def wilson(rate: float, n: int) -> Interval:
    """Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212).

    For a mean of values in 0..1 that are no coin tosses it is conservative: their variance is at most
    that of coin tosses of the same mean.

    Args:
        rate: the observed mean, 0..1.
        n: observations; 0 gives the interval 0..1.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z2 = _Z95 * _Z95
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if rate == 0 else max(0.0, centre - half)
    high = 1.0 if rate == 1 else min(1.0, centre + half)
    return Interval(low, high)


def images_to_decide(rate: float, threshold: float) -> int | None:
    """Observations after which Wilson's interval would leave the threshold, were the rate to stay.

    None when no number within ten million does.
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
    """Two classifiers on the same labelled images, counted by who was right."""

    both: int
    only_original: int
    only_engine: int
    neither: int

    @property
    def n(self) -> int:
        """Images counted."""
        return self.both + self.only_original + self.only_engine + self.neither

    @property
    def original_accuracy(self) -> float:
        """Share the original had right."""
        return (self.both + self.only_original) / self.n

    @property
    def engine_accuracy(self) -> float:
        """Share the engine had right."""
        return (self.both + self.only_engine) / self.n

    def mcnemar(self) -> float:
        """Exact two-sided p-value that both err equally often (Q. McNemar, Psychometrika 12, 1947)."""
        b, c = self.only_original, self.only_engine
        if b == c:
            return 1.0
        tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
        return float(min(1.0, 2 * tail / 2 ** (b + c)))

    def margin(self, ratio: float) -> Interval:
        """Interval of (engine's accuracy - ratio x original's accuracy); 0 is the threshold.

        The four cells get half a pseudo-observation each, as Agresti and Min (Statistics in Medicine
        24, 2005, 729-740) do for matched proportions: no width of zero when nobody disagrees.
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
