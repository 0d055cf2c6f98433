"""What the charts of a report share: colors, axes and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt

from cnnx.report.document import Scalar

Rows: TypeAlias = Sequence[Mapping[str, Scalar]]

# Okabe and Ito's palette for color-blind readers; a shape or a pattern of dashes repeats what a color says.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
INK = "currentColor"
"""Color of texts and lines: that of the page."""

_ROW = 26  # pixels for a row of a chart with names on its left


def base(rows: Rows) -> Any:
    """A chart of rows without marks."""
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def names(rows: Rows, column: str) -> list[Any]:
    """The values of a column, each once, in order."""
    return list(dict.fromkeys(row[column] for row in rows if row.get(column) is not None))


def colors(rows: Rows, column: str) -> alt.Scale:
    """A color for each value of a column, in their order."""
    found = names(rows, column)
    return alt.Scale(domain=found, range=[PALETTE[place % len(PALETTE)] for place in range(len(found))])


def rowed(rows: Rows, column: str) -> tuple[alt.Y, int]:
    """An axis with a row for each value of a column, and its height."""
    found = names(rows, column)
    return alt.Y(f"{column}:N", sort=found, title=None), max(2, len(found)) * _ROW
