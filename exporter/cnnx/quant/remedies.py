"""Finds the cheapest change that brings a quantized network close to its original, by trying changes.

The search does not depend on runtimes or graphs: the caller provides a function that tries the network with
given changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cnnx.quant.repair import Outcome

Kind = Literal["method", "range", "center", "equalize", "images", "rounding", "shortcuts", "fp16"]
"""What is changed: the range method of all tensors, or of what some layers read; centering; equalization; the
number of calibration images; the rounding of weights that read the image; shortcuts and layers in FP16."""

_WORTH = 0.9
"""A change that costs nothing is combined with others if the distance falls at least to this share."""
_ENOUGH = 0.75
"""Where the network passes as it is, a change must reach this share of its distance to be advised."""
_TOGETHER = 3
_ERRORS = 3
_PREFIXES = (1, 2, 3, 5, 8, 13)


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change of how a network is quantized.

    Attributes:
        kind: what is changed.
        layers: layers in FP16, or whose input has another range; else empty.
        method: range method, for "method" and "range".
        on: whether centering or equalization is turned on.
        images: number of calibration images, for "images".
        cost: MACs that leave INT8.
    """

    kind: Kind
    layers: tuple[str, ...] = ()
    method: str = ""
    on: bool = False
    images: int = 0
    cost: int = 0


Remedies = tuple[Remedy, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """A network that was tried.

    Attributes:
        remedies: what was changed; empty for the network as it is.
        outcome: its distance from the original, and whether it passes.
        distances: distance of each image, to tell a gain from chance.
    """

    remedies: Remedies
    outcome: Outcome
    distances: NDArray[np.float64]

    @property
    def cost(self) -> int:
        """MACs that leave INT8."""
        return sum(each.cost for each in self.remedies)

    def beats(self, other: Tried) -> bool:
        """Whether it is closer to the original beyond chance: by three errors of the paired difference.

        Twice the error would let chance pass once or so in the twenty trials of a search.
        """
        if not (math.isfinite(self.outcome.distance) and math.isfinite(other.outcome.distance)):
            return self.outcome.distance < other.outcome.distance
        gain = other.distances - self.distances
        return bool(gain.mean() > _ERRORS * gain.std() / math.sqrt(len(gain)))


Attempt = Callable[[Remedies], Tried]


@dataclass(frozen=True, slots=True)
class Advice:
    """Result of a search.

    Attributes:
        tried: every network that was tried, the one as it is first.
        chosen: the cheapest that reaches the goal, or else the closest; None if nothing helps beyond chance.
        reaches: whether the chosen one reaches the goal: to pass, or, for a network that passes as it is, to
            come closer by a quarter.
    """

    tried: tuple[Tried, ...]
    chosen: Tried | None
    reaches: bool


def advise(free: Sequence[Remedy], layers: Sequence[Remedy], attempt: Attempt) -> Advice:
    """Search for the cheapest change that helps.

    First each change without a cost is tried alone. If none is enough, the best are tried together. If that
    is not enough, layers return to FP16 as well: the shortest prefix of 1, 2, 3, 5, 8 or 13 layers that is.
    It is also tried without the other changes, as fewer changes are better.

    Args:
        free: changes without a cost.
        layers: layers to return to FP16, one change each, the most harmful first.
        attempt: tries the network with these changes; called once for each combination.
    """
    known: dict[Remedies, Tried] = {}

    def tried(remedies: Remedies) -> Tried:
        if remedies not in known:
            known[remedies] = attempt(remedies)
        return known[remedies]

    start = tried(())

    def reaches(each: Tried) -> bool:
        closer = each.outcome.distance <= _ENOUGH * start.outcome.distance
        return each.outcome.passes and each.beats(start) and (closer or not start.outcome.passes)

    alone = [tried((each,)) for each in free]
    if not any(map(reaches, alone)) and not reaches(best := _together(start, alone, tried)):
        for count in _PREFIXES:
            fp16 = tuple(layers[:count])
            if len(fp16) < count or reaches(tried(fp16)):
                break
            if best.remedies and reaches(tried((*best.remedies, *fp16))):
                break
    helping = [each for each in known.values() if each.beats(start)]
    reaching = [each for each in helping if reaches(each)]
    chosen = min(
        reaching or helping,
        key=lambda each: (
            (each.cost, len(each.remedies), each.outcome.distance) if reaching else (each.outcome.distance,)
        ),
        default=None,
    )
    return Advice(tuple(known.values()), chosen, bool(reaching))


def _together(start: Tried, alone: Sequence[Tried], attempt: Attempt) -> Tried:
    """The best of these changes together, added one by one while each is worth it."""
    ranked = sorted((each for each in alone if _worth(each, start)), key=lambda each: each.outcome.distance)
    if not ranked:
        return start
    best = ranked[0]
    for each in ranked[1:]:
        [remedy] = each.remedies
        if len(best.remedies) == _TOGETHER or any(_excludes(remedy, other) for other in best.remedies):
            continue
        both = attempt((*best.remedies, remedy))
        if _worth(both, best):
            best = both
    return best


def _worth(each: Tried, than: Tried) -> bool:
    return each.outcome.distance <= _WORTH * than.outcome.distance and each.beats(than)


def _excludes(one: Remedy, other: Remedy) -> bool:
    """Whether two changes set the same thing."""
    return one.kind == other.kind and (one.kind != "range" or one.layers == other.layers)
