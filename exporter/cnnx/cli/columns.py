"""How every table looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.markup import escape
from rich.table import Table

_SHORT = ("what", "data", "verdict", "name", "weights")


def titled(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table under a title; figures stand to the right and are not broken, no more than names."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        fixed = column in _SHORT or column in right
        table.add_column(column, justify=justify, overflow="fold", no_wrap=fixed)
    return table
