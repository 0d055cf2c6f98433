"""The race of the finalists: more and more runs, for fewer and fewer engines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from cnnx.quant.repair import Outcome
from cnnx.quant.tuning.device import SAME, Device, E, Paired, Placement

# Standard errors of the ratios, round by round.
_ROUNDS = (0.002, 0.001, 0.0007)
# For each engine of a round, even if the time is over: a race without a measurement decides nothing.
_LEAST_S = 1.0
# An engine leaves if it is slower than the best by this many standard errors.
_SLOWER = 3.0
# Differences below this share of FP16's time are not worth any loss of accuracy.
EQUAL = 0.0025


@dataclass(frozen=True, slots=True)
class Racer(Generic[E]):
    """An engine in the race, with its time over that of the first racer."""

    placement: Placement
    engine: E
    outcome: Outcome
    time: Paired


@dataclass(frozen=True, slots=True)
class Finish(Generic[E]):
    """Result of a race: all racers, the fastest first, and the placement of the winner."""

    racers: tuple[Racer[E], ...]
    winner: Placement


def race(racers: Sequence[Racer[E]], device: Device[E], *, left_s: Callable[[], float]) -> Finish[E]:
    """Compare engines until one is shown to be the fastest that passes, or the rounds or the time are over.

    Args:
        racers: engines; the first is the one that all are compared with, passes, and stays in the race.
        device: measures.
        left_s: seconds that are left for all rounds.
    """
    base, left, out = racers[0], list(racers[1:]), list[Racer[E]]()
    for number, error in enumerate(_ROUNDS):
        if not left or (number and left_s() <= 0):
            break
        patience = max(_LEAST_S * (1 + len(left)), left_s() / (len(_ROUNDS) - number))
        times = device.compare([base.engine, *(each.engine for each in left)], error=error, seconds=patience)
        left = [
            dataclasses.replace(each, time=time if each.time == SAME else each.time.with_more(time))
            for each, time in zip(left, times, strict=True)
        ]
        best = _best([base, *left])
        # Those that fail the gates take part only to be compared with FP16.
        gone = [each for each in left if not each.outcome.passes or _is_slower(each, best)]
        out += gone
        left = [each for each in left if each not in gone]
        if len(left) <= 1 and number:
            break
    ranked = sorted([base, *left, *out], key=lambda each: each.time.log_ratio)
    return Finish(tuple(ranked), _winner([base, *left]).placement)


def _best(racers: Sequence[Racer[E]]) -> Racer[E]:
    return min((each for each in racers if each.outcome.passes), key=lambda each: each.time.log_ratio)


def _is_slower(racer: Racer[E], best: Racer[E]) -> bool:
    """Whether it is shown to be slower than the best."""
    error = math.hypot(racer.time.error, best.time.error)
    return racer.time.log_ratio - best.time.log_ratio > max(_SLOWER * error, EQUAL)


def _winner(racers: Sequence[Racer[E]]) -> Racer[E]:
    """The least damaging of those that are as fast as the best."""
    best = _best(racers)
    error = 1.96 * best.time.error
    limit = best.time.log_ratio + EQUAL
    # One that is not shown to be faster than FP16 does not win over FP16.
    equal = [each for each in racers if each.outcome.passes and each.time.log_ratio <= limit]
    if best.time.log_ratio + error >= 0:
        equal = [racers[0]]
    return min(equal, key=lambda each: (each.outcome.distance, each.time.log_ratio))
