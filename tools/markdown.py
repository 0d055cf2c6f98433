"""Formats Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, left: Iterable[int] = (0,)) -> str:
    """A Markdown table; columns whose index is in `left` are left-aligned, others right-aligned."""
    columns, left = list(columns), set(left)
    rule = "".join("---|" if index in left else "---:|" for index in range(len(columns)))
    return "\n".join([f"| {' | '.join(columns)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)])
