"""The search: which sites carry Q/DQ so that the network is fastest and passes its gates.

Latency is modeled as a sum over sites and over links of neighbors, as a boundary between INT8 and FP16 costs
a reformat or breaks a fusion. Each engine that is built improves the model. The next placement is the best
one of a random draw from what is known of the model (Thompson sampling; D. Russo et al., A Tutorial on
Thompson Sampling, 2018), so engines are spent where an optimum may be. The fastest ones then race.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

import numpy as np

from cnnx.quant.repair import Outcome
from cnnx.quant.tuning.choice import Objective, least
from cnnx.quant.tuning.damage import Damage
from cnnx.quant.tuning.device import (
    SAME,
    Budget,
    Device,
    E,
    Judge,
    Ledger,
    Placement,
    Refused,
    Tried,
)
from cnnx.quant.tuning.latency import LatencyModel
from cnnx.quant.tuning.problem import Bools, Problem
from cnnx.quant.tuning.race import Racer, race

EXPLORING_ERROR = 0.003
"""Standard error of a ratio of times, as a share, at which exploring stops to measure one engine."""
# Exploring ends if the model expects to gain less than this share of FP16's time.
_WORTH = 0.001
_CHECK_EVERY, _DRAWS = 6, 12
# Engines kept for the race, in addition to those of FP16 and of the given placement.
FINALISTS = 5
# Share of the time that is left for the race, and of the time that judging sites alone may take.
_FOR_RACE, _FOR_SITES = 0.2, 0.25
# Share of the time that measuring one engine may take.
_FOR_ONE = 1 / 60
_PROPOSALS = 24

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Found(Generic[E]):
    """Result of a search.

    Attributes:
        chosen: the fastest placement that passes; of those that are equally fast, the least damaging.
        engine: its engine, as it was measured.
        given: the placement that the search began with; its time is from the race where it took part.
        finalists: placements of the race, the fastest first.
        expected_regret: what the model expects to be lost to the true optimum, as a share of FP16's time.
        ended: why the search ended.
    """

    chosen: Tried
    engine: E
    given: Tried
    finalists: tuple[Tried, ...]
    expected_regret: float
    ended: str


class OutOfTime(Exception):
    """The budget ended before FP16 and the given placement were compared."""


class Search(Generic[E]):
    """One search.

    Args:
        problem: sites and links.
        device: builds and measures.
        judge: judges accuracy; each placement is judged once.
        given: placement to begin with.
        ledger: what an earlier search learnt; it is added to.
        budget: how long to search.
        canonical: the sites that carry Q/DQ if these may; placements that give one graph have one result.
        clock: seconds since any moment.
        save: called with each addition to the ledger.
        progress: called with the number of engines built and their maximum.
        seed: seed of all draws.
    """

    def __init__(
        self,
        problem: Problem,
        device: Device[E],
        judge: Judge,
        *,
        given: Placement,
        ledger: Ledger,
        budget: Budget,
        clock: Callable[[], float],
        canonical: Callable[[Placement], Placement] = frozenset,
        save: Callable[[], None] = lambda: None,
        progress: Progress = lambda *_: None,
        seed: int = 0,
    ) -> None:
        self._problem, self._device, self._judge, self._given = problem, device, judge, given
        self._ledger, self._budget, self._save, self._progress = ledger, budget, save, progress
        self._canonical = canonical
        self._clock, self._before, self._started = clock, ledger.seconds, clock()
        self._generator = np.random.default_rng(seed + len(ledger.tried))
        self._engines: dict[Placement, E] = {}
        self._latency = LatencyModel(problem)
        self._whole = canonical(frozenset(problem.names))

    def run(self) -> Found[E] | None:
        """Search; None if not even the network without Q/DQ passes.

        Raises:
            Refused: the builder refuses the network without Q/DQ.
            OutOfTime: the budget is too small to compare anything.
        """
        none, whole = frozenset[str](), self._whole
        passes = self._outcome(none).passes
        self._outcome(self._given)
        if not passes:
            return None
        self._base()
        if self._left() <= 0:
            raise OutOfTime
        self._measure(self._given)
        if not self._outcome(whole).passes:
            self._judge_sites()
        elif self._left() > self._reserve():
            self._measure(whole)
        ended, regret = self._explore()
        return self._race(ended, regret)

    def _explore(self) -> tuple[str, float]:
        """Build and measure while that is expected to pay; why it ended, and the expected regret."""
        regret, typical = math.inf, 0.0
        while True:
            number = len(self._ledger.tried)
            if number >= self._budget.builds:
                return f"{self._budget.builds} engines were built", self._regret()
            if self._left() - typical <= self._reserve():
                return "the budget was used", self._regret()
            if number % _CHECK_EVERY == 0 and number > len(self._problem.sites) // 4:
                regret = self._regret()
                if regret < _WORTH:
                    return "no more gain was expected", regret
            placement = self._proposal(exploit=number % 3 == 0)
            if placement is None:
                return "no other placement was promising", self._regret()
            began = self._clock()
            self._measure(placement)
            typical = max(typical, self._clock() - began)

    def _proposal(self, *, exploit: bool) -> Placement | None:
        """A placement that passes and was not tried; None if none is found."""
        self._latency.fit(self._ledger.measured)
        for attempt in range(_PROPOSALS):
            names = self._named(self._best(mean=exploit and attempt == 0))
            if names in self._ledger.tried and attempt % 2:
                names = self._named(self._nearby(names))
            if names in self._ledger.tried or not names:
                continue
            if self._left() <= self._reserve():
                return None
            if self._outcome(names).passes:
                return names
        return None

    def _best(self, *, mean: bool) -> Bools:
        """The best placement by the model's mean, or by a draw from it."""
        damage = self._damage()
        if mean:
            linear, pairs = self._latency.mean()
            added, bound = damage.mean, damage.bound
        else:
            linear, pairs = self._latency.draw(self._generator)
            added, bound = damage.draw(self._generator)
        objective = Objective(linear, pairs, added, bound)
        starts = [self._problem.placement(each.placement) for each in self._leaders()[:3]]
        return least(self._problem, objective, self._generator, starts=starts)

    def _nearby(self, names: Placement) -> Bools:
        """A placement with one or two sites changed."""
        near = self._problem.placement(names)
        for _ in range(int(self._generator.integers(1, 3))):
            site = int(self._generator.integers(len(near)))
            near[site] = not near[site]
        return near

    def _named(self, placement: Bools) -> Placement:
        return self._canonical(self._problem.names_of(placement))

    def _damage(self) -> Damage:
        return Damage(self._problem, self._ledger.judged, whole=self._whole)

    def _leaders(self) -> list[Tried]:
        """Measured placements that pass, the fastest by measurement and model first."""
        self._latency.fit(self._ledger.measured, choose=False)
        passing = [each for each in self._ledger.measured if each.outcome.passes]
        return sorted(passing, key=self._latency.estimate)

    def _regret(self) -> float:
        """Mean, over draws from the model, of what the leader loses to the best placement."""
        if not self._ledger.measured:
            return math.inf
        self._latency.fit(self._ledger.measured)
        leader = self._problem.placement(self._leaders()[0].placement)
        damage = self._damage()
        lost = []
        for _ in range(_DRAWS):
            linear, pairs = self._latency.draw(self._generator)
            objective = Objective(linear, pairs, damage.mean, damage.draw(self._generator)[1])
            best = least(self._problem, objective, self._generator, starts=[leader])
            lost.append(max(0.0, objective.latency(leader) - objective.latency(best)))
        return float(np.mean(lost))

    def _race(self, ended: str, regret: float) -> Found[E]:
        """Let the fastest placements race against FP16."""
        none = frozenset[str]()
        racing = [none, *(each.placement for each in self._leaders()[:FINALISTS]), self._given]
        racers = []
        for placement in dict.fromkeys(racing):
            tried = self._ledger.tried[placement]
            if tried.refused or not (placement in self._engines or self._rebuild(placement)):
                continue
            racers.append(Racer(placement, self._engines[placement], tried.outcome, SAME))
        found = race(racers, self._device, left_s=self._left)
        finished = [Tried(each.placement, each.outcome, each.time) for each in found.racers]
        for each in finished:
            self._ledger.tried[each.placement] = each
        self._note()
        return Found(
            chosen=self._ledger.tried[found.winner],
            engine=self._engines[found.winner],
            given=self._ledger.tried[self._given],
            finalists=tuple(finished),
            expected_regret=regret,
            ended=ended,
        )

    def _rebuild(self, placement: Placement) -> bool:
        """Build the engine of a placement that an earlier process measured; whether that succeeded."""
        try:
            self._engines[placement] = self._device.build(placement)
        except Refused:
            return False
        return True

    def _base(self) -> None:
        """Build the network without Q/DQ, which all times are compared with."""
        none = frozenset[str]()
        self._engines[none] = self._device.build(none)
        self._ledger.tried.setdefault(none, Tried(none, self._outcome(none), SAME))
        self._note()

    def _measure(self, placement: Placement) -> None:
        """Build a placement and compare it with FP16, unless that is known."""
        if placement in self._ledger.tried:
            return
        outcome, base = self._outcome(placement), self._engines[frozenset()]
        try:
            engine = self._device.build(placement)
        except Refused as refusal:
            self._ledger.tried[placement] = Tried(placement, outcome, None, str(refusal) or "refused")
        else:
            (time,) = self._device.compare(
                [base, engine], error=EXPLORING_ERROR, seconds=self._budget.seconds * _FOR_ONE
            )
            self._ledger.tried[placement] = Tried(placement, outcome, time)
            self._engines[placement] = engine
            self._drop_slow()
        self._note()

    def _drop_slow(self) -> None:
        """Free the engines that will not race."""
        kept = {frozenset[str](), self._given, *(each.placement for each in self._leaders()[:FINALISTS])}
        for placement in [each for each in self._engines if each not in kept]:
            self._device.discard(self._engines.pop(placement))

    def _judge_sites(self) -> None:
        """Judge each site alone, the most work first, while time allows."""
        until = self._spent() + _FOR_SITES * (self._budget.seconds - self._spent())
        for site in sorted(self._problem.sites, key=lambda each: -each.share):
            if self._spent() > until:
                break
            if self._canonical(alone := frozenset([site.name])) == alone:
                self._outcome(alone)

    def _outcome(self, placement: Placement) -> Outcome:
        if placement not in self._ledger.judged:
            self._ledger.judged[placement] = self._judge(placement)
            self._note()
        return self._ledger.judged[placement]

    def _spent(self) -> float:
        return self._before + self._clock() - self._started

    def _left(self) -> float:
        return self._budget.seconds - self._spent()

    def _reserve(self) -> float:
        """Time to keep for the race."""
        return _FOR_RACE * self._budget.seconds if math.isfinite(self._budget.seconds) else 0.0

    def _note(self) -> None:
        self._ledger.seconds = self._spent()
        self._save()
        self._progress(len(self._ledger.tried), self._budget.builds)


def front(tried: Iterator[Tried] | tuple[Tried, ...]) -> tuple[Tried, ...]:
    """The Pareto front: no other placement is at most as slow and at most as far from the original.

    Sorted by time, the fastest first.
    """
    ranked = sorted(
        (each for each in tried if each.time is not None),
        key=lambda each: (each.time.log_ratio if each.time else 0.0, each.outcome.distance),
    )
    kept: list[Tried] = []
    for each in ranked:
        if not kept or each.outcome.distance < kept[-1].outcome.distance:
            kept.append(each)
    return tuple(kept)
