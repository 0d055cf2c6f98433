"""Simulate how often the rules on spread and percentiles are wrong. Prints the table of docs/measuring.md.

python -m tools.check.validity_rules [--series N]

Each row is a kind of series of GPU compute times: a clock that wanders (a first-order autoregression with a
correlation of 0.9), with hiccups of the host (each adds 0.05 to 1 ms), or throttling. Columns are the shares
of the series in which a rule speaks: the coefficient of variation, as trtexec judges it, the rules on the
median, and those on p99. The last column is the share in which the median is more than 2.5 % from the one of
a long series without hiccups and throttling.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.measure.samples import variation
from cnnx.measure.spread import UNSTEADY, judge_percentile

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """A kind of series.

    Attributes:
        what: its name.
        median_ms: time of a run at the nominal clock.
        noise: standard deviation of the clock, relative.
        hiccups: share of runs that the host interrupts.
        slow: number of runs -> relative time of each, for throttling.
    """

    what: str
    median_ms: float
    noise: float = 0.003
    hiccups: float = 0.0
    slow: Callable[[int], Times] = np.ones


def step(by: float, since: float) -> Callable[[int], Times]:
    """Throttled by a factor from a share of the series on."""
    return lambda runs: np.where(np.arange(runs) < since * runs, 1.0, 1 + by)


def bursts(by: float, share: float) -> Callable[[int], Times]:
    """Throttled for a share of each 100 runs."""
    return lambda runs: np.where(np.arange(runs) % 100 < 100 * (1 - share), 1.0, 1 + by)


KINDS = (
    Kind("steady clock, 0.3 %", 0.5),
    Kind("wandering clock, 1 %", 0.5, noise=0.01),
    Kind("wandering clock, 2 %", 0.5, noise=0.02),
    *(Kind(f"hiccups in 0.05 % of runs of {ms} ms", ms, hiccups=0.0005) for ms in (0.05, 0.15, 0.35)),
    Kind("hiccups in 0.5 % of runs of 0.05 ms", 0.05, hiccups=0.005),
    Kind("hiccups in 1 % of runs of 0.05 ms", 0.05, hiccups=0.01),
    Kind("hiccups in 2 % of runs of 0.05 ms", 0.05, hiccups=0.02),
    Kind("10 % slower in the last third", 0.5, slow=step(0.10, 0.66)),
    Kind("4 % slower in the last half", 0.5, slow=step(0.04, 0.5)),
    Kind("25 % slower in 4 of 100 runs", 0.5, slow=bursts(0.25, 0.04)),
    Kind("25 % slower in 20 of 100 runs", 0.5, slow=bursts(0.25, 0.20)),
)


def series(kind: Kind, runs: int, generator: np.random.Generator) -> Times:
    """Times of a series, in nanoseconds."""
    shocks = generator.normal(size=runs) * kind.noise * np.sqrt(1 - 0.9**2)
    clock = np.empty(runs)
    state = generator.normal() * kind.noise
    for at, shock in enumerate(shocks):
        state = 0.9 * state + shock
        clock[at] = state
    late = (generator.random(runs) < kind.hiccups) * generator.uniform(0.05, 1, runs)
    return 1e6 * (kind.median_ms * (1 + clock) * kind.slow(runs) + late)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=200)
    count = parser.parse_args().series
    print("| series of 2,000 runs | CoV > 2.5 % | median invalid | p99 invalid | median off by 2.5 % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for number, kind in enumerate(KINDS):
        generator = np.random.default_rng(number)
        found = np.array([_judged(kind, series(kind, 2000, generator)) for _ in range(count)])
        shares = " | ".join(f"{100 * share:.1f} %" for share in found.mean(axis=0))
        print(f"| {kind.what} | {shares} |")
    return 0


def _judged(kind: Kind, times: Times) -> tuple[bool, bool, bool, bool]:
    samples = times.astype(np.int64).tolist()
    off = abs(float(np.median(times)) / (1e6 * kind.median_ms) - 1)
    return (
        (variation(samples) or 0) > UNSTEADY,
        not judge_percentile(samples, 50).valid,
        not judge_percentile(samples, 99).valid,
        off > UNSTEADY,
    )


if __name__ == "__main__":
    sys.exit(main())
