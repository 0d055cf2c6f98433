"""Draws the chart of a search for where Q/DQ go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import altair as alt

from cnnx.report.page.marks import PALETTE, Rows, base, names

_STATES = {"chosen": "diamond", "the bundle's": "square", "passes": "circle", "fails the gates": "cross"}


def _front(rows: Rows) -> Any:
    """Placements by time and divergence; a line joins those of the Pareto front."""
    drawn = base(rows)
    bases = [state for state in names(rows, "state") if state not in _STATES]
    known = [state for state in (*_STATES, *bases) if state in names(rows, "state")]
    colors = dict(
        zip((*_STATES, *bases), (PALETTE[1], PALETTE[0], PALETTE[2], PALETTE[6], PALETTE[3]), strict=False)
    )
    color = alt.Color("state:N", scale=alt.Scale(domain=known, range=[colors[each] for each in known]))
    shape = alt.Shape(
        "state:N", scale=alt.Scale(domain=known, range=[_STATES.get(each, "triangle-up") for each in known])
    )
    x = alt.X(
        "nats:Q",
        title="divergence, nats",
        scale=alt.Scale(nice=True),
        axis=alt.Axis(format="~g", tickCount=5),
    )
    y = alt.Y("ratio:Q", title="time, 1: without Q/DQ", scale=alt.Scale(zero=False, padding=12))
    tooltip = [
        "number:Q",
        "state:N",
        alt.Tooltip("ratio:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
        "nats:Q",
        alt.Tooltip("agreement:Q", format=".1%"),
        "layers:Q",
        "shortcuts:Q",
    ]
    return alt.layer(
        drawn.mark_rule(opacity=0.35).encode(
            x=x, y=alt.Y("low:Q", title="time, 1: without Q/DQ"), y2="high:Q", color=color
        ),
        drawn.transform_filter("datum.front").mark_line(opacity=0.5, color=PALETTE[6]).encode(x=x, y=y),
        drawn.mark_point(filled=True, size=90, opacity=0.9).encode(
            x=x, y=y, color=color, shape=shape, tooltip=tooltip
        ),
    ).properties(height=300)


TUNE_CHARTS: Mapping[str, Callable[[Rows], Any]] = {"front": _front}
"""Kind of a chart -> what draws its rows."""
