"""Summarizes what a search learnt, for its record and its tables."""

from __future__ import annotations

import math

from cnnx.agreement import Likeness
from cnnx.pipeline.search.trials import Trials
from cnnx.pipeline.tune.device import Built
from cnnx.pipeline.tune.findings import TunedPlacement, TunedSite, Tuning
from cnnx.pipeline.tune.images import TuningImages
from cnnx.pipeline.tune.network import TunedNetwork, counts
from cnnx.quant.tuning.device import Ledger, Paired, Placement, Tried
from cnnx.quant.tuning.search import Found, front
from cnnx.stats import Interval


def tuning_of(
    network: TunedNetwork,
    ledger: Ledger,
    trials: Trials,
    found: Found[Built] | None,
    *,
    images: TuningImages,
    batch: int,
    base: str,
    budget_seconds: float,
    ended: str,
    engine: Likeness | None = None,
    notes: tuple[str, ...] = (),
) -> Tuning:
    """The result of a search; for what is given as in `Tuning` see there.

    Args:
        network: what was tuned.
        ledger: what the search learnt.
        trials: likeness of each placement that was judged.
        found: what the search chose; None if nothing passes, or the budget was too small.
    """
    chosen = None if found is None else found.chosen
    raced = set() if found is None else {each.placement for each in found.finalists}
    on_front = {each.placement for each in front(ledger.measured)}
    tried = list(ledger.tried.values()) or [Tried(frozenset(), ledger.judged[frozenset()], None)]
    rows = tuple(
        _row(number, each, network, trials, chosen=chosen, raced=raced, on_front=on_front)
        for number, each in enumerate(tried)
    )
    sites = tuple(
        TunedSite(
            site.name,
            site.shortcut,
            kind.kind,
            site.name in network.given,
            chosen is not None and site.name in chosen.placement,
        )
        for site, kind in zip(network.sites, network.problem.sites, strict=True)
    )
    return Tuning(
        batch=batch,
        base=base,
        images=len(images.selection),
        image_set=images.selection.name,
        placements=rows,
        sites=sites,
        kinds=network.problem.kinds,
        judged=len(ledger.judged),
        against_given=None if found is None else _between(found.chosen.time, found.given.time),
        engine=engine,
        expected_regret=None if found is None else found.expected_regret,
        ended=ended,
        seconds=ledger.seconds,
        budget_seconds=budget_seconds,
        notes=notes,
    )


def _row(
    number: int,
    tried: Tried,
    network: TunedNetwork,
    trials: Trials,
    *,
    chosen: Tried | None,
    raced: set[Placement],
    on_front: set[Placement],
) -> TunedPlacement:
    placement = tried.placement
    roles = {
        "fp16": not placement,
        "given": placement == network.given,
        "chosen": chosen is not None and placement == chosen.placement,
    }
    layers, shortcuts = counts(network.sites, placement)
    return TunedPlacement(
        number=number,
        roles=tuple(role for role, has in roles.items() if has),
        layers=layers,
        shortcuts=shortcuts,
        share=network.share(placement),
        ratio=None if tried.time is None else tried.time.ratio,
        interval=None if tried.time is None else tried.time.interval,
        likeness=trials(placement),
        passes=tried.outcome.passes,
        raced=placement in raced,
        front=placement in on_front,
        refused=tried.refused,
    )


def _between(one: Paired | None, other: Paired | None) -> Interval | None:
    """Interval of the ratio of two times that were both measured over FP16's."""
    if one is None or other is None or one == other:
        return None
    error = math.hypot(one.error, other.error)
    return Paired(one.log_ratio - other.log_ratio, error, min(one.rounds, other.rounds)).interval
