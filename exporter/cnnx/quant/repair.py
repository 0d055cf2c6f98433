"""Which layers INT8 harms, and the cheapest of them to put back into FP16 so that a network passes.

Knows no runtime and no graph: whoever calls gives a function that tries the network with some of its layers
in INT8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a network is from its original (0: not at all), and whether that will do."""

    distance: float
    passes: bool


Try = Callable[[frozenset[str]], Outcome]
"""The network with just these layers in INT8."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """One layer that returns to FP16.

    Attributes:
        layer: its name.
        alone: the distance that this layer alone in INT8 makes.
        spared: by how much the repaired network's distance would be larger with this layer in INT8; None
            where no trial was left to tell.
    """

    layer: str
    alone: float
    spared: float | None


@dataclass(frozen=True, slots=True)
class Repair:
    """What a search came to.

    Attributes:
        put_back: layers that return to FP16, the most damaging first; empty where none had to, and where
            even none in INT8 would not do.
        before: with all layers in INT8.
        after: without those put back.
        tried: how many networks were tried.
        exhausted: whether the search ended because no more might be.
    """

    put_back: tuple[PutBack, ...]
    before: Outcome
    after: Outcome
    tried: int
    exhausted: bool = False


class _Exhausted(Exception):
    """No more networks may be tried."""


def repair(layers: Sequence[str], attempt: Try, *, costs: Mapping[str, int], most: int) -> Repair:
    """Search for the cheapest layers to put back.

    Layers are ranked by the distance that each makes alone, and the shortest start of that ranking is put
    back without which the rest passes. Then, the costliest first, layers return to INT8 until none can
    alone: harm that is done together, or was ranked too high, is sorted out there.

    Args:
        layers: those in INT8.
        attempt: tries a network; equal sets are tried once.
        costs: what a layer costs more in FP16, such as its multiply-adds.
        most: how many networks may be tried.

    Returns:
        The repair found; where `after` does not pass, `most` was too small (what was put back by then stays
        so), or nothing would do.
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
            alone = {layer: tried([layer]).distance for layer in layers}
            _grow(back, whole, sorted(layers, key=lambda layer: -alone[layer]), tried)
            _shrink(back, whole, sorted(back, key=lambda each: (-costs[each], alone[each], each)), tried)
    except _Exhausted:
        exhausted = True
    after = known.get(whole - back, before)
    put_back = []
    for layer in sorted(back, key=lambda each: (-alone[each], each)):
        with_it = known.get(whole - back | {layer})
        spared = None if with_it is None else with_it.distance - after.distance
        put_back.append(PutBack(layer, alone[layer], spared))
    return Repair(tuple(put_back), before, after, len(known), exhausted)


def _grow(
    back: set[str], whole: frozenset[str], ranking: Sequence[str], tried: Callable[[Iterable[str]], Outcome]
) -> None:
    """Put back the shortest start of a ranking without which the rest passes; none where nothing does.

    Distances say nothing on the way: a network that is wholly wrong can hardly get worse, or better. So only
    whether it passes is asked, by exponential search (Bentley and Yao, 1976): few trials for few layers.
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
    """Return layers to INT8 while the rest passes; at the end each of those left has been tried alone."""
    returned = True
    while returned:
        returned = False
        for layer in order:
            if layer in back and tried(whole - back | {layer}).passes:
                back.remove(layer)
                returned = True
