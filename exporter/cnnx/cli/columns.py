"""How every table looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from cnnx.report.tables import Table as Told

_SHORT = ("what", "data", "verdict", "name", "weights")


def titled(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table under a title; figures stand to the right and are not broken, no more than names."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        fixed = column in _SHORT or column in right
        table.add_column(column, justify=justify, overflow="fold", no_wrap=fixed)
    return table


def print_told(out: Console, told: Told) -> None:
    """A report's table, remarks below."""
    table = titled(told.title, *told.columns, right=tuple(told.right))
    for row in told.rows:
        table.add_row(*map(escape, row))
    out.print(table)
    for remark in told.remarks:
        out.print(escape(remark), soft_wrap=True)
