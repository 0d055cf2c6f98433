"""Write docs/statistics.md: coverage and power of the intervals that decide gates, by simulation.

python -m tools.bench.statistics [--repeats N]

Every figure is a share of repeats with a known truth; the seed is fixed. Wilson's coverage is exact, as a sum
over all counts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement.logits import mean_interval
from cnnx.measure.bootstrap import block_bootstrap, middle, resampled_quantiles
from cnnx.measure.comparing import compare
from cnnx.measure.samples import Latency
from cnnx.stats import Interval, Paired, difference, wilson
from tools import ROOT
from tools.markdown import table, write_page

PAGE = ROOT / "docs" / "statistics.md"
LOW, HIGH = 0.93, 0.97
NOISE = 0.02
"""Standard deviation of a latency over its mean, as of a quiet machine."""
CORRELATIONS = (0.0, 0.5, 0.9)
POWER, ALARMS = 0.95, 0.05
Draw = Callable[[np.random.Generator], bool]


@dataclass(frozen=True, slots=True)
class Power:
    """Share of repeats in which a planted regression was found, and in which an absent one was."""

    comparison: str
    size: str
    condition: str
    found: float
    alarms: float


def share(draw: Draw, repeats: int, *key: int) -> float:
    """Share of repeats in which something holds."""
    generators = (np.random.default_rng([*key, repeat]) for repeat in range(repeats))
    return sum(map(draw, generators)) / repeats


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def wilson_coverage(p: float, n: int) -> float:
    """Exact coverage: the probability of all counts whose interval holds p."""
    total = 0.0
    for count in range(n + 1):
        if holds(wilson(count / n, n), p):
            logs = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
            total += math.exp(logs + count * math.log(p) + (n - count) * math.log1p(-p))
    return total


def cells(accuracy: float, lost: float, won: float) -> tuple[float, float, float, float]:
    """Probabilities of both right, only the original, only the engine, neither."""
    return accuracy - lost, lost, won, 1 - accuracy - won


def counts(generator: np.random.Generator, n: int, probabilities: tuple[float, ...]) -> Paired:
    return Paired(*map(int, generator.multinomial(n, probabilities)))


def series(generator: np.random.Generator, n: int, correlation: float) -> NDArray[np.float64]:
    """Latencies around 1 ms in ns: a lognormal AR(1) process, whose median is 1 ms."""
    steps = generator.normal(0, math.sqrt(1 - correlation**2), n)
    values = np.empty(n)
    values[0] = generator.normal()
    for place in range(1, n):
        values[place] = correlation * values[place - 1] + steps[place]
    return 1e6 * np.exp(NOISE * values)


def coverages(repeats: int) -> Iterator[tuple[str, str, float]]:
    """What is covered, its parameters, and the share of intervals that hold the truth."""
    for p in (0.9, 0.95, 0.99, 0.995):
        for n in (200, 800, 3000):
            yield "rate (Wilson)", f"p = {p:g}, n = {n}", wilson_coverage(p, n)
    for lost, won in ((0.01, 0.01), (0.013, 0.01), (0.03, 0.02)):
        for n in (800, 5000):
            true = cells(0.76, lost, won)

            def paired(generator: np.random.Generator, n: int = n, true: tuple[float, ...] = true) -> bool:
                return holds(counts(generator, n, true).margin(1.0), true[2] - true[1])

            text = f"{lost:.1%} lost, {won:.1%} won, n = {n}"
            yield "accuracy, paired", text, share(paired, 10 * repeats, 1, n, round(1e4 * lost))
    for p, q in ((0.99, 0.98), (0.76, 0.75)):

        def independent(generator: np.random.Generator, p: float = p, q: float = q) -> bool:
            a, b = (float(generator.binomial(800, each)) / 800 for each in (p, q))
            return holds(difference(b, wilson(b, 800), a, wilson(a, 800)), q - p)

        yield (
            "two rates, not paired",
            f"p = {p:g} and {q:g}, n = 800",
            share(independent, 4 * repeats, 2, round(100 * p)),
        )
    for spread in (1.0, 2.0):
        for n in (200, 800):

            def divergence(generator: np.random.Generator, n: int = n, spread: float = spread) -> bool:
                values = np.exp(generator.normal(0, spread, n))
                return holds(mean_interval(values), math.exp(spread**2 / 2))

            text = f"lognormal, spread {spread:g}, n = {n}"
            yield "mean divergence", text, share(divergence, repeats, 3, n, round(spread))
    yield from latency_coverages(repeats)


def latency_coverages(repeats: int) -> Iterator[tuple[str, str, float]]:
    for correlation in CORRELATIONS:
        for n in (100, 1000):

            def median(generator: np.random.Generator, n: int = n, r: float = correlation) -> bool:
                found = block_bootstrap(series(generator, n, r).tolist())
                return found is not None and holds(found.median, 1e6)

            text = f"correlation {correlation:g}, n = {n}"
            yield "median latency", text, share(median, repeats, 4, n, round(10 * correlation))

        def tail(generator: np.random.Generator, r: float = correlation) -> bool:
            truth = 1e6 * math.exp(NOISE * 2.3263479)
            return holds(middle(resampled_quantiles(series(generator, 2000, r).tolist(), 0.99)), truth)

        text = f"correlation {correlation:g}, n = 2000"
        yield "p99 latency", text, share(tail, repeats // 2, 5, round(10 * correlation))

        def turns(generator: np.random.Generator, r: float = correlation) -> bool:
            return holds(in_turns(generator, 1.01, 100, r), 1.01)

        text = f"correlation {correlation:g}, 100 rounds, drift of 10 %"
        yield "latency ratio in turns", text, share(turns, repeats, 6, round(10 * correlation))

        def apart(generator: np.random.Generator, r: float = correlation) -> bool:
            return holds(not_in_turns(generator, 1.01, 1000, r), 1.01)

        text = f"correlation {correlation:g}, n = 1000, no drift"
        yield "latency ratio, not in turns", text, share(apart, repeats // 2, 7, round(10 * correlation))


def in_turns(generator: np.random.Generator, ratio: float, rounds: int, correlation: float) -> Interval:
    """The interval of a ratio by turns of ten, while both drift by 10 %."""
    n = 10 * rounds
    # One process of noise, as both networks share the machine: turns of ten alternate in it.
    whole = series(generator, 2 * n, correlation) * np.linspace(1, 1.1, 2 * n)
    turns = whole.reshape(-1, 2, 10)
    turns[1::2] = turns[1::2, ::-1].copy()  # the order alternates from round to round, as in measurements
    base, new = turns[:, 0].ravel(), ratio * turns[:, 1].ravel()
    one, other = (
        Latency(tuple(np.rint(each).astype(int).tolist()), 1, 0, "steady", True) for each in (new, base)
    )
    found = compare(one, other)
    assert found
    return found.interval


def not_in_turns(generator: np.random.Generator, ratio: float, n: int, correlation: float) -> Interval:
    """The interval of a ratio by the intervals of both medians, as `cnnx compare` computes it."""
    logs = []
    for factor in (ratio, 1.0):
        values = factor * series(generator, n, correlation)
        at = middle(resampled_quantiles(values.tolist(), 0.5))
        logs.append((math.log(float(np.median(values))), Interval(math.log(at.low), math.log(at.high))))
    found = difference(*logs[0], *logs[1])
    return Interval(math.exp(found.low), math.exp(found.high))


def powers(repeats: int) -> Iterator[Power]:
    """How often planted regressions are found, and how often absent ones."""
    for correlation in CORRELATIONS:
        condition = f"correlation {correlation:g}"
        for rounds in (25, 50, 100):
            turns = partial(in_turns, rounds=rounds, correlation=correlation)
            key = (8, rounds, round(10 * correlation))
            found = [share(partial(slower, turns, ratio), repeats, *key) for ratio in (1.01, 1.0)]
            yield Power("latency + 1 %, in turns", f"{rounds} rounds", condition, *found)
        for n in (300, 1000):
            apart = partial(not_in_turns, n=n, correlation=correlation)
            key = (9, n, round(10 * correlation))
            found = [share(partial(slower, apart, ratio), repeats, *key) for ratio in (1.01, 1.0)]
            yield Power("latency + 1 %, not in turns", f"{n} samples each", condition, *found)
    for disagree in (0.01, 0.02):
        for n in (10_000, 20_000, 30_000, 50_000):
            key = (10, n, round(1e4 * disagree))
            true = [cells(0.76, (disagree + lost) / 2, (disagree - lost) / 2) for lost in (0.003, 0.0)]
            found = [share(partial(less_accurate, n, each), 8 * repeats, *key) for each in true]
            condition = f"{disagree:.0%} differ"
            yield Power("accuracy - 0.3 points, paired", f"{n:,} images", condition, *found)


def slower(
    interval: Callable[[np.random.Generator, float], Interval], ratio: float, generator: np.random.Generator
) -> bool:
    """Whether a latency is shown to be worse than the base's."""
    return interval(generator, ratio).low > 1


def less_accurate(n: int, true: tuple[float, ...], generator: np.random.Generator) -> bool:
    """Whether an accuracy on n images is shown to be worse than the base's."""
    return counts(generator, n, true).margin(1.0).high < 0


def outside(covered: Iterable[tuple[str, str, float]]) -> str:
    """The lowest coverage of each interval that leaves the bounds."""
    worst: dict[str, tuple[float, str]] = {}
    for what, text, each in covered:
        if not LOW <= each <= HIGH:
            worst[what] = min(worst.get(what, (1.0, "")), (each, text))
    lines = [f"- {what}: {each:.1%} at worst ({text})" for what, (each, text) in worst.items()]
    return "\n".join(lines) or "Every interval stays within these bounds."


def sizes(found: Sequence[Power]) -> str:
    """The smallest size with enough power for each comparison, and where false alarms are too many."""
    enough: dict[tuple[str, str], str] = {}
    for each in found:
        key = each.comparison, each.condition
        if each.found >= POWER:
            enough.setdefault(key, each.size)
    lines = [
        f"- {what}, {condition}: {enough.get((what, condition), 'no size that was tried')}"
        for what, condition in dict.fromkeys((each.comparison, each.condition) for each in found)
    ]
    many = [f"{e.comparison}, {e.size}, {e.condition}: {e.alarms:.1%}" for e in found if e.alarms > ALARMS]
    return "\n".join([*lines, "", f"False alarms above {ALARMS:.0%}: {'; '.join(many) or 'none'}."])


TEXT = """# Statistics, by simulation

Written by `python -m tools.bench.statistics`; do not edit. {repeats} repeats with a fixed seed,
ten times as many where counts are drawn (eight times for power), half as many for percentiles and,
for coverage, ratios without turns. Wilson's coverage is exact. At 200 repeats a share of 95 % has a
standard error of 1.5 points.

A gate passes or fails by a 95 % interval. This page shows how often such intervals hold the truth,
and how large a regression must be to be found. Latencies are simulated as a lognormal process with
a standard deviation of 2 % and serial correlation between neighbours (AR(1)), two networks in turns
of ten share one such process, which also drifts by 10 %.

## Coverage

Share of intervals that hold the truth. **Bold**: outside 93 to 97 %.

{coverage}

Outside these bounds are:

{outside}

Wilson's interval jumps as one image more or less moves its bound. Samples that correlate hold less
than independent ones: prefer many. Nothing covers drift between two runs that did not take turns.

## Power and false alarms

Share of repeats in which the new network is shown to be worse: with the regression planted
(*found*), and without any (*false alarms*, at most 5 %). **Bold**: 95 % power.

{power}

Smallest size with 95 % power:

{sizes}
"""


def main() -> None:
    """Simulate, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    covered, found = list(coverages(options.repeats)), list(powers(options.repeats))
    coverage = (
        (what, text, f"{each:.1%}" if LOW <= each <= HIGH else f"**{each:.1%}**")
        for what, text, each in covered
    )
    power = (
        (
            each.comparison,
            f"{each.size}, {each.condition}",
            f"**{each.found:.1%}**" if each.found >= POWER else f"{each.found:.1%}",
            f"{each.alarms:.1%}",
        )
        for each in found
    )
    page = TEXT.format(
        repeats=options.repeats,
        coverage=table(["interval", "truth and size", "coverage"], coverage, left=(0, 1)),
        outside=outside(covered),
        sizes=sizes(found),
        power=table(["comparison", "size", "found", "false alarms"], power, left=(0, 1)),
    )
    write_page(options.page, page)


if __name__ == "__main__":
    main()
