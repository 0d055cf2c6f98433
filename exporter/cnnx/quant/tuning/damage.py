"""Predicts the distance of a placement that was not judged, and how much of it the gates allow."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cnnx.quant.repair import Outcome
from cnnx.quant.tuning.device import Placement
from cnnx.quant.tuning.problem import Floats, Problem
from cnnx.quant.tuning.surrogate import Posterior, Prior, Regression

# A network this far from its original, in nats, is wrong altogether: more says nothing.
_WRONG = 1.0
# Distances add up to within this share of them.
_ADDS_UP = 0.1


class Damage:
    """What the judged placements show: the distance that each site adds, and the distance that passes.

    Args:
        problem: the sites.
        judged: outcomes, of at least the placement without Q/DQ and of `whole`.
        whole: the placement with all Q/DQ.
    """

    def __init__(self, problem: Problem, judged: Mapping[Placement, Outcome], *, whole: Placement) -> None:
        n, floor = len(problem.sites), _distance(judged[frozenset()])
        total = max(_distance(judged[whole]) - floor, 1e-12)
        alone = {
            index: max(_distance(judged[frozenset([name])]) - floor, 0.0)
            for index, name in enumerate(problem.names)
            if frozenset([name]) in judged
        }
        # The others share what is left. A shortcut, for one, has no Q/DQ alone.
        left = max(total - sum(alone.values()), 0.1 * total) / max(n - len(alone), 1)
        mean = np.array([alone.get(index, left) for index in range(n)])
        deviation = np.array(
            [0.25 * alone[index] + 0.02 * total / n if index in alone else left for index in range(n)]
        )
        known = [
            (problem.placement(placement).astype(np.float64), _distance(outcome) - floor)
            for placement, outcome in judged.items()
            if len(placement) > 1
        ]
        prior = Prior(mean, deviation, np.zeros(n, np.intp))
        rows = np.array([row for row, _ in known]).reshape(len(known), n)
        values = np.array([value for _, value in known])
        errors = _ADDS_UP * np.abs(values) + 1e-3 * total
        # In units of the whole, as the regression's misfit is absolute.
        scaled = Prior(prior.mean / total, prior.deviation / total, prior.group)
        found = Regression(scaled).fit(rows, values / total, errors / total, choose=False)
        self._posterior = Posterior(found.mean * total, found.root * total)
        self._low, self._high = _bounds(judged, floor)

    @property
    def mean(self) -> Floats:
        """(n,) expected distance that each site adds."""
        return np.maximum(self._posterior.mean, 0.0)

    @property
    def bound(self) -> float:
        """The largest added distance that is known to pass; infinite if nothing failed."""
        return self._low if math.isfinite(self._high) else math.inf

    def draw(self, generator: np.random.Generator) -> tuple[Floats, float]:
        """A draw of the distance that each site adds, and of the largest sum that passes."""
        added = np.maximum(self._posterior.draw(generator), 0.0)
        if not math.isfinite(self._high):
            return added, math.inf
        return added, float(generator.uniform(self._low, self._high))


def _distance(outcome: Outcome) -> float:
    return min(outcome.distance, _WRONG) if not math.isnan(outcome.distance) else _WRONG


def _bounds(judged: Mapping[Placement, Outcome], floor: float) -> tuple[float, float]:
    """Added distances between which the gates start to fail; the second is infinite if nothing failed."""
    passed = max((_distance(each) - floor for each in judged.values() if each.passes), default=0.0)
    failed = [_distance(each) - floor for each in judged.values() if not each.passes]
    above = [each for each in failed if each > passed]
    if above:
        return max(passed, 0.0), min(above)
    # What fails is no farther than what passes: agreement and distance disagree near the limit.
    return (min(failed), passed) if failed else (passed, math.inf)
