"""Keeps what a search has learnt, so that one that was stopped resumes."""

from __future__ import annotations

import json
from typing import Any

from cnnx.quant.repair import Outcome
from cnnx.quant.tuning.device import Ledger, Paired, Tried
from cnnx.store.cache import Partial


def read_ledger(journal: Partial) -> Ledger:
    """The ledger of an interrupted search; empty if there is none, or the journal is damaged."""
    kept = json.loads(journal.load() or b'{"judged": [], "tried": [], "seconds": 0.0}')
    judged = {frozenset(names): Outcome(*outcome) for names, *outcome in kept["judged"]}
    tried = [
        Tried(frozenset(names), judged[frozenset(names)], None if time is None else Paired(*time), refused)
        for names, time, refused in kept["tried"]
    ]
    return Ledger(judged, {each.placement: each for each in tried}, kept["seconds"])


def save_ledger(ledger: Ledger, journal: Partial) -> None:
    """Write a ledger.

    Raises:
        WriteFailed: the file cannot be written.
    """
    judged = [[sorted(names), each.distance, each.passes] for names, each in ledger.judged.items()]
    tried: list[list[Any]] = [
        [
            sorted(each.placement),
            each.time and [each.time.log_ratio, each.time.error, each.time.rounds],
            each.refused,
        ]
        for each in ledger.tried.values()
    ]
    kept = json.dumps({"judged": judged, "tried": tried, "seconds": ledger.seconds})
    journal.save(lambda file: file.write_bytes(kept.encode()))
