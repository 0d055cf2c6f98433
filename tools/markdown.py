"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, left: Iterable[int] = (0,)) -> str:
    """Columns whose place is in `left` are text, the others numbers."""
    columns, left = list(columns), set(left)
    rule = "".join("---|" if place in left else "---:|" for place in range(len(columns)))
    return "\n".join([f"| {' | '.join(columns)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)])
