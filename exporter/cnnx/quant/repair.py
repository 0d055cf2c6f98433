"""Which layers INT8 harms, and the cheapest of them to put back into FP16 so that a network passes.

Knows no runtime and no graph: whoever calls gives a function that tries the network with some of its layers
in INT8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

# Less than this share of the distance gone: the ranking has lost its way.
_STALLED = 0.1


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

    Layers are ranked by the distance that each makes alone. As many of the worst are put back as it takes,
    doubling their number; where that hardly helps, the others are ranked anew, by what each one's return
    would help the network as it then is. Then, the costliest first, layers return to INT8 until none
    can alone.

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
    back: set[str], whole: frozenset[str], ranking: list[str], tried: Callable[[Iterable[str]], Outcome]
) -> None:
    """Put back the first layers of a ranking, so many that the rest passes; none where nothing does."""
    last, step = tried(whole).distance, 1
    while ranking:
        more = set(ranking[:step])
        ranking = ranking[step:]
        outcome = tried(whole - back - more)
        back |= more
        if outcome.passes:
            return
        if outcome.distance > (1 - _STALLED) * last:
            ranking.sort(key=lambda layer: tried(whole - back - {layer}).distance)
        last, step = outcome.distance, len(back)
    back.clear()


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
