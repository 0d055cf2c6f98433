"""Search placements on a model of latency whose optimum is known. Prints the table of docs/tuning.md.

python -m tools.bench.tune [--seeds N] [--first SEED] [--world TEXT]

Each seed is another device and network. Groups take lognormal shares of FP16's time, and INT8 speeds each up
or slows it down. Groups form a chain with shortcuts. Where one neighbor is INT8 and the other is not, a
reformat costs time, or a fusion breaks; where both are INT8, a reformat is saved. Runs vary by 1 %, clocks
drift by 3 %, and 2 % of the runs are interrupted. Damage is skewed and does not add up exactly; the gate
allows 20 to 60 % of that of all groups. The true optimum is found by trying all placements.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnx.quant.repair import Outcome
from cnnx.quant.tuning.device import Budget, Ledger, Paired, Placement
from cnnx.quant.tuning.problem import Link, Problem, Site
from cnnx.quant.tuning.search import Search

Floats = NDArray[np.float64]
GROUPS = 22
BUILDS = 90
_TURN, _RUN_S, _BUILD_S = 10, 0.001, 20.0


@dataclass(frozen=True)
class World:
    """What a simulated device is like.

    Attributes:
        what: its name.
        noise: standard deviation of one run, as a share.
        hiccups: share of runs that are interrupted.
        builds: standard deviation between two builds of one graph, as a share.
        triples: largest effect of three neighbors that the search does not model, as a share of FP16's time.
        groups: number of groups.
    """

    what: str
    noise: float = 0.01
    hiccups: float = 0.02
    builds: float = 0.0
    triples: float = 0.0
    groups: int = GROUPS


WORLDS = (
    World("runs vary by 1 %"),
    World("runs vary by 3 %", noise=0.03),
    World("builds of one graph differ by 0.5 %", builds=0.005),
    World("three neighbors act together, up to 2 %", triples=0.02),
    World("24 groups", groups=24),
)


@dataclass
class Engine:
    """A simulated engine with its own time, in units of FP16's."""

    placement: Placement
    true: float


class Model:
    """A network on a device: the true time and distance of every placement, and what measuring shows."""

    def __init__(self, world: World, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.world, self._draw, n = world, np.random.default_rng(seed + 10**6), world.groups
        share = draw.lognormal(0, 0.7, n)
        share /= share.sum()
        ends = [(i, i + 1) for i in range(n - 1)] + [(i, i + 3) for i in range(0, n - 3, 4)]
        gain = share * draw.uniform(-0.15, 0.55, n)
        border, both = draw.uniform(0, 0.02, len(ends)), draw.uniform(0, 0.012, len(ends))
        self.linear, self.pairs = -gain, np.zeros((n, n))
        for (one, other), cost, saved in zip(ends, border, both, strict=True):
            self.linear[[one, other]] += cost  # the sum of both, less twice the product, is 1 at a border
            self.pairs[one, other] -= 2 * cost + saved
        self.triples = draw.uniform(-world.triples, world.triples, n - 2)
        self.alone = draw.lognormal(0, 1.4, n) * 1e-3
        self._together = np.zeros((n, n))
        for one, other in ends:
            self._together[one, other] = draw.uniform(-0.2, 0.3) * min(self.alone[one], self.alone[other])
        self.bound = draw.uniform(0.2, 0.6) * self.distance(np.ones((1, n)))[0]
        sites = [Site(f"g{i:02}", i, 1 / n) for i in range(n)]
        self.problem = Problem(sites, [Link(a, b, k) for k, (a, b) in enumerate(ends)])
        self.now, self.built = 0.0, 0

    def time(self, x: Floats) -> Floats:
        """Times of placements (m, n), in units of FP16's."""
        three = x[:, :-2] * x[:, 1:-1] * x[:, 2:]
        found: Floats = 1 + x @ self.linear + ((x @ self.pairs) * x).sum(axis=1) + three @ self.triples
        return found

    def distance(self, x: Floats) -> Floats:
        """Distances of placements (m, n) from the original."""
        found: Floats = x @ self.alone + ((x @ self._together) * x).sum(axis=1)
        return found

    def optimum(self) -> float:
        """Least time of all placements that pass."""
        n, lowest = self.world.groups, 1.0
        low_bits = min(n, 16)
        low = _bits(np.arange(2**low_bits), low_bits)
        for high in range(2 ** (n - low_bits)):
            x = np.concatenate([low, np.repeat(_bits(np.array([high]), n - low_bits), len(low), 0)], axis=1)
            passing = self.distance(x) <= self.bound
            lowest = min(lowest, float(self.time(x[passing]).min(initial=1.0)))
        return lowest

    def true(self, placement: Placement) -> float:
        """True time of a placement."""
        return float(self.time(self._row(placement))[0])

    def judge(self, placement: Placement) -> Outcome:
        """Distance of a placement, and whether it passes."""
        distance = float(self.distance(self._row(placement))[0])
        return Outcome(distance, distance <= self.bound)

    def build(self, placement: Placement) -> Engine:
        """An engine; two of one placement may differ."""
        self.now, self.built = self.now + _BUILD_S, self.built + 1
        differs = float(np.exp(self.world.builds * self._draw.standard_normal()))
        return Engine(placement, self.true(placement) * differs)

    def compare(self, engines: Sequence[Engine], *, error: float, seconds: float) -> tuple[Paired, ...]:
        """Paired times: medians of turns, on clocks that drift."""
        until = self.now + seconds
        turns: list[Floats] = []
        while True:
            turns.append(np.array([self._turns(engine, 10, len(turns)) for engine in engines]))
            logs = np.log(np.concatenate(turns, axis=1))
            ratios = logs[1:] - logs[0]
            errors = ratios.std(axis=1, ddof=1) / np.sqrt(ratios.shape[1])
            if errors.max() <= error or ratios.shape[1] >= 400 or self.now > until:
                rounds = ratios.shape[1]
                return tuple(
                    Paired(float(mean), float(each), rounds)
                    for mean, each in zip(ratios.mean(axis=1), errors, strict=True)
                )

    def discard(self, engine: Engine) -> None:
        """Nothing to free."""

    def _turns(self, engine: Engine, rounds: int, number: int) -> Floats:
        """Median time of each turn."""
        world, draw = self.world, self._draw
        self.now += rounds * _TURN * _RUN_S
        drift = 1 + 0.03 * np.sin(0.7 * number + np.arange(rounds)[:, None] / 20)
        runs = engine.true * drift * (1 + world.noise * draw.standard_normal((rounds, _TURN)))
        hit = draw.random(runs.shape) < world.hiccups
        found: Floats = np.median(np.where(hit, runs * draw.uniform(1.5, 5, runs.shape), runs), axis=1)
        return found

    def _row(self, placement: Placement) -> Floats:
        return self.problem.placement(placement).astype(np.float64)[None]


def _bits(numbers: NDArray[np.intp], count: int) -> Floats:
    found: Floats = ((numbers[:, None] >> np.arange(count)) & 1).astype(np.float64)
    return found


@dataclass(frozen=True)
class Trial:
    """What one seed gave, as regrets: time lost to the true optimum, as a share of it."""

    search: float
    by_damage: float
    one_by_one: float
    passes: bool
    over_fp16: float
    builds: int
    judged: int


def trial(world: World, seed: int) -> Trial:
    """Search on one model."""
    model = Model(world, seed)
    best, everything = model.optimum(), frozenset(model.problem.names)
    ledger = Ledger()
    search = Search(
        model.problem,
        model,
        model.judge,
        given=everything,
        ledger=ledger,
        budget=Budget(builds=BUILDS),
        clock=lambda: model.now,
        seed=seed,
    )
    found = search.run()
    assert found is not None
    chosen, built = found.chosen.placement, model.built
    return Trial(
        search=model.true(chosen) / best - 1,
        by_damage=model.true(greedy_by_damage(model, everything)) / best - 1,
        one_by_one=model.true(greedy_by_damage(model, faster_alone(model))) / best - 1,
        passes=model.judge(chosen).passes,
        over_fp16=model.true(chosen),
        builds=built,
        judged=len(ledger.judged),
    )


def greedy_by_damage(model: Model, start: Placement) -> Placement:
    """Remove the group that does the most damage alone until the rest passes."""
    left = sorted(start, key=lambda name: model.judge(frozenset([name])).distance)
    while not model.judge(frozenset(left)).passes:
        left.pop()
    return frozenset(left)


def faster_alone(model: Model) -> Placement:
    """Groups whose median of ten runs, alone in INT8, is below FP16's."""
    base = model.build(frozenset())
    before = float(model._turns(base, 1, 0)[0])
    engines = [model.build(frozenset([name])) for name in model.problem.names]
    faster = [each for each in engines if float(model._turns(each, 1, 0)[0]) < before]
    return frozenset(name for each in faster for name in each.placement)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--world", default="", help="only worlds whose name contains this")
    options = parser.parse_args()
    print("| world | regret at most 1 % | mean | worst | by damage | one by one | engines | judged |")
    print("|---|---|---|---|---|---|---|---|")
    for world in (each for each in WORLDS if options.world in each.what):
        found = [trial(world, seed) for seed in range(options.first, options.first + options.seeds)]
        assert all(each.passes for each in found)
        good = sum(each.search <= 0.01 for each in found)
        columns = (
            world.what,
            f"{good} of {len(found)}",
            *(f"{value:.2%}" for value in _regrets(found)),
            f"{statistics.fmean(each.builds for each in found):.0f}",
            f"{statistics.fmean(each.judged for each in found):.0f}",
        )
        print("|", " | ".join(columns), "|", flush=True)


def _regrets(found: Sequence[Trial]) -> tuple[float, ...]:
    return (
        statistics.fmean(each.search for each in found),
        max(each.search for each in found),
        statistics.fmean(each.by_damage for each in found),
        statistics.fmean(each.one_by_one for each in found),
    )


if __name__ == "__main__":
    main()
