"""Table of the cards of a report."""

from __future__ import annotations

from collections.abc import Sequence

from cnnx.report.document import Card
from cnnx.report.table import Cell, Column, Figures, Table, table_of

_SHOWN = ("top-1 accuracy", "top-1 agreement", "latency p50", "memory", "energy per image")


def card_table(cards: Sequence[Card]) -> Table:
    """The verdict and the main figures of each subject."""
    columns: tuple[Column[Card], ...] = (
        Column("network", lambda card: card.title, fixed=True),
        Column("what", lambda card: card.subject, drop=1),
        Column("verdict", lambda card: Cell(card.verdict, card.tone), fixed=True),
        *(_figure(label) for label in _SHOWN),
    )
    return table_of("Summary", columns, [cards])


def _figure(label: str) -> Column[Card]:
    def value(card: Card) -> str:
        return next((each.value for each in card.figures if each.label == label), "-")

    return Figures(label, value, known=True)
