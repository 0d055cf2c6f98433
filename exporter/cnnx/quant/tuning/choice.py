"""The placement of least latency under a bound of damage, for given coefficients.

Quadratic pseudo-Boolean minimization with a knapsack constraint: steepest descent over single and double
changes, restarted from perturbed optima (iterated local search; H. R. Lourenço, O. C. Martin and T. Stützle,
2003).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnnx.quant.tuning.problem import Bools, Floats, Problem

_KICKS = 20
# Changes below this are noise of arithmetic.
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Objective:
    """What to minimize, and within which bound.

    Attributes:
        linear: (n,) latency that Q/DQ at a site add.
        pairs: (n, n), symmetric with a zero diagonal: latency that Q/DQ at both of two sites add.
        damage: (n,) damage of Q/DQ at a site, at least 0.
        bound: largest sum of damage allowed, at least 0.
    """

    linear: Floats
    pairs: Floats
    damage: Floats
    bound: float

    def latency(self, placement: Bools) -> float:
        """Latency that a placement adds."""
        chosen = placement.astype(np.float64)
        return float(self.linear @ chosen + 0.5 * chosen @ self.pairs @ chosen)


def least(
    problem: Problem, objective: Objective, generator: np.random.Generator, *, starts: Iterable[Bools] = ()
) -> Bools:
    """The best placement found within the bound.

    Args:
        problem: sites and links.
        objective: what to minimize.
        generator: source of perturbations.
        starts: placements to start from, in addition to none and all.
    """
    n = len(problem.sites)
    best, lowest = np.zeros(n, np.bool_), 0.0
    for start in (best.copy(), np.ones(n, np.bool_), *starts):
        found = _descend(start.copy(), objective)
        if (value := objective.latency(found)) < lowest - _LEAST:
            best, lowest = found, value
    for _ in range(_KICKS if n else 0):
        found = _descend(_kicked(best, problem, generator), objective)
        if (value := objective.latency(found)) < lowest - _LEAST:
            best, lowest = found, value
    return best


def _kicked(placement: Bools, problem: Problem, generator: np.random.Generator) -> Bools:
    """A placement with a connected run of a few sites set to one state."""
    kicked, n = placement.copy(), len(placement)
    frontier, reached = [int(generator.integers(n))], set[int]()
    size = int(generator.integers(2, max(3, min(n, 8)) + 1))
    while frontier and len(reached) < size:
        site = frontier.pop(int(generator.integers(len(frontier))))
        reached.add(site)
        frontier += [each for each in problem.neighbors[site] if each not in reached]
    kicked[list(reached)] = not placement[next(iter(reached))]
    return kicked


def _descend(placement: Bools, objective: Objective) -> Bools:
    """Change one or two sites at a time while that lowers latency and keeps the bound."""
    damage, bound = objective.damage, objective.bound
    _to_bound(placement, objective)
    while True:
        sign = np.where(placement, -1.0, 1.0)
        one = sign * (objective.linear + objective.pairs @ placement.astype(np.float64))
        spent = float(damage @ placement)
        two = one[:, None] + one[None, :] + objective.pairs * np.outer(sign, sign)
        more = sign * damage
        grown = spent + more[:, None] + more[None, :]
        np.fill_diagonal(two, one)
        np.fill_diagonal(grown, spent + more)
        two[grown > bound * (1 + 1e-9) + 1e-15] = np.inf
        at = int(np.argmin(two)) if two.size else 0
        if not two.size or two.flat[at] >= -_LEAST:
            return placement
        row, column = divmod(at, len(placement))
        placement[row] = not placement[row]
        if row != column:
            placement[column] = not placement[column]


def _to_bound(placement: Bools, objective: Objective) -> None:
    """Drop sites, the least saving for its damage first, until the bound is kept."""
    while placement.any() and float(objective.damage @ placement) > objective.bound:
        saved = -(objective.linear + objective.pairs @ placement.astype(np.float64))
        worth = np.where(placement, saved / np.maximum(objective.damage, 1e-30), np.inf)
        placement[int(np.argmin(worth))] = False
