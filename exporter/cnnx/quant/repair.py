"""Finds the cheapest layers to return to FP16 so that an INT8 network passes validation.

The search does not depend on runtimes or graphs: the caller provides a function that tries the network with
given layers in INT8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """Distance of a network from its original (0: identical), and whether it passes."""

    distance: float
    passes: bool


_SHARE_OF_RANKING = 0.75
"""Trials of halving before all layers are ranked, as a share of their number."""
_FEW = 0.2
"""Share of the whole distance that a layer found by halving has at least where few layers are to blame."""

Try = Callable[[frozenset[str]], Outcome]
"""Tries the network with only these layers in INT8."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """One layer that returns to FP16.

    Attributes:
        layer: name of the layer.
        alone: distance with only this layer in INT8.
        spared: increase of the repaired network's distance with this layer in INT8; None if no trial was left
            to measure it.
    """

    layer: str
    alone: float
    spared: float | None


@dataclass(frozen=True, slots=True)
class Repair:
    """Result of a search.

    Attributes:
        put_back: layers that return to FP16, the most damaging first; empty if none had to, or if the network
            does not pass even with no layer in INT8.
        before: outcome with all layers in INT8.
        after: outcome with the layers of `put_back` in FP16.
        tried: number of trials.
        exhausted: whether the search stopped at the maximum number of trials.
    """

    put_back: tuple[PutBack, ...]
    before: Outcome
    after: Outcome
    tried: int
    exhausted: bool = False


class _Exhausted(Exception):
    """The maximum number of trials was reached."""


def repair(layers: Sequence[str], attempt: Try, *, costs: Mapping[str, int], most: int) -> Repair:
    """Search for the cheapest layers to return to FP16.

    Distances nearly add up over layers, so a layer that makes most of one is found by halving: of a group of
    layers in INT8, its half with the larger distance is taken, until one layer is left. Found layers return
    to FP16 until the network passes. If that takes long, because many layers are to blame or few of them only
    together, all layers are ranked by their distance when alone in INT8, and the shortest prefix of the
    ranking that makes the network pass returns to FP16. Then, starting with the costliest, layers go back to
    INT8 until no single one can, in case some were taken too early.

    Args:
        layers: layers in INT8, in graph order.
        attempt: tries a network; equal sets are tried only once.
        costs: extra cost of each layer in FP16, such as its MACs.
        most: maximum number of trials.

    Returns:
        The repair found. If `after` does not pass, either `most` was too small (layers already returned to
        FP16 remain there), or no repair is possible.
    """
    known: dict[frozenset[str], Outcome] = {}
    whole = frozenset(layers)

    def tried(int8: Iterable[str]) -> Outcome:
        key = frozenset(int8)
        if key not in known:
            if len(known) >= most:
                raise _Exhausted
            known[key] = attempt(key)
        return known[key]

    before = tried(whole)
    alone: dict[str, float] = {}
    back: set[str] = set()
    exhausted = False
    try:
        if not before.passes:
            _halve(back, layers, alone, tried, enough=lambda: len(known) > len(layers) * _SHARE_OF_RANKING)
        if not tried(whole - back).passes:
            alone |= {layer: tried([layer]).distance for layer in layers}
            back.clear()
            _grow(back, whole, sorted(layers, key=lambda layer: -alone[layer]), tried)
        _shrink(back, whole, sorted(back, key=lambda each: (-costs[each], alone[each], each)), tried)
    except _Exhausted:
        exhausted = True
    after = known[whole - back]
    put_back = []
    for layer in sorted(back, key=lambda each: (-alone[each], each)):
        with_it = known.get(whole - back | {layer})
        spared = None if with_it is None else with_it.distance - after.distance
        put_back.append(PutBack(layer, alone[layer], spared))
    return Repair(tuple(put_back), before, after, len(known), exhausted)


def _halve(
    back: set[str],
    layers: Sequence[str],
    alone: dict[str, float],
    tried: Callable[[Iterable[str]], Outcome],
    *,
    enough: Callable[[], bool],
) -> None:
    """Return layers that make most of a distance to FP16, until the network passes or this takes too long.

    Groups are the same each time, so that those without a layer that was found are not tried again.
    """
    while not (outcome := tried(set(layers) - back)).passes:
        group, distance = list(layers), outcome.distance
        while len(group) > 1:
            if enough():
                return
            first = group[: len(group) // 2]
            in_int8 = [layer for layer in first if layer not in back]
            found = tried(in_int8).distance if in_int8 else 0.0
            # Without the first half, its distance is missing: the rest is not tried.
            group, distance = (
                (first, found) if 2 * found >= distance else (group[len(first) :], distance - found)
            )
        [layer] = group
        if layer in back:
            return
        alone[layer] = tried([layer]).distance
        if 2 * alone[layer] < distance:  # layers harm together what none of them does alone
            return
        tried(set(layers) - back - {layer})  # before it is returned: trials may end here
        back.add(layer)
        if alone[layer] < _FEW * outcome.distance:
            return


def _grow(
    back: set[str], whole: frozenset[str], ranking: Sequence[str], tried: Callable[[Iterable[str]], Outcome]
) -> None:
    """Return the shortest prefix of a ranking that makes the network pass to FP16; none if nothing does.

    Only passing is tested, because distances are not informative here: a completely wrong network hardly gets
    worse or better. Exponential search (Bentley and Yao, 1976) needs few trials if the prefix is short.
    """
    fails, start = 0, 1
    while True:
        passes = tried(whole.difference(ranking[:start])).passes
        back.update(ranking[:start])
        if passes:
            break
        if start >= len(ranking):
            back.clear()
            return
        fails, start = start, 2 * start
    start = len(back)
    while start - fails > 1:
        middle = (fails + start) // 2
        if tried(whole.difference(ranking[:middle])).passes:
            start = middle
            back.difference_update(ranking[middle:])
        else:
            fails = middle


def _shrink(
    back: set[str], whole: frozenset[str], order: list[str], tried: Callable[[Iterable[str]], Outcome]
) -> None:
    """Move layers back to INT8 while the network passes, until no single one of the rest can be moved."""
    returned = True
    while returned:
        returned = False
        for layer in order:
            if layer in back and tried(whole - back | {layer}).passes:
                back.remove(layer)
                returned = True
