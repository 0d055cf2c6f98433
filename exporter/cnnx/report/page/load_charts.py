"""Draws the charts of streams and soaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import altair as alt

from cnnx.report.page.marks import INK, PALETTE, Rows, base, colors, names


def _streams(rows: Rows) -> Any:
    """p50 and the requested percentile of each stream; a rule is when the next frame is due."""
    drawn = base(rows)
    timed = [row for row in rows if row.get("streams") is not None]
    known = names(timed, "series")
    ms = [float(row["ms"]) for row in rows if isinstance(row["ms"], (int, float))]
    wide = min(ms) > 0 and max(ms) > 20 * min(ms)
    x = alt.X("streams:O", title="streams at the same time", axis=alt.Axis(labelAngle=0))
    y = alt.Y("ms:Q", title="ms", scale=alt.Scale(type="log") if wide else alt.Scale(zero=True))
    color = alt.Color("series:N", scale=colors(timed, "series"))
    shape = alt.Shape("series:N", scale=alt.Scale(domain=known, range=["circle", "diamond"]))
    of_streams = drawn.transform_filter("isValid(datum.streams)")
    return alt.layer(
        of_streams.mark_line(opacity=0.5).encode(
            x=x,
            y=alt.Y("max(ms):Q", title="ms"),
            color=color,
            strokeDash=alt.StrokeDash("series:N", legend=None),
        ),
        of_streams.mark_point(filled=True, size=70, opacity=0.7).encode(
            x=x, y=y, color=color, shape=shape, tooltip=["streams:O", "stream:O", "series:N", "ms:Q"]
        ),
        drawn.transform_filter("!isValid(datum.streams)")
        .mark_rule(color=INK, strokeDash=[6, 3])
        .encode(y=y, tooltip=["series:N", "ms:Q"]),
    ).properties(height=240)


def _throughput(rows: Rows) -> Any:
    """Images per second of all streams."""
    return (
        base(rows)
        .mark_bar(color=PALETTE[0], opacity=0.85)
        .encode(
            x=alt.X("streams:O", title="streams at the same time", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("rate:Q", title="images per second"),
            tooltip=["streams:O", "rate:Q"],
        )
        .properties(height=200)
    )


def _soak(rows: Rows) -> Any:
    """A figure over the time of a soak, with throttled windows shaded."""
    drawn = base(rows)
    lines = [row for row in rows if row["mark"] == "line"]
    x = alt.X("at:Q", title=str(rows[0]["time"]), scale=alt.Scale(nice=False))
    y = alt.Y("value:Q", title=str(lines[0]["axis"]), scale=alt.Scale(zero=False))
    color = alt.Color("series:N", scale=colors(lines, "series"))
    line = drawn.transform_filter("datum.mark === 'line'")
    return alt.layer(
        drawn.transform_filter("datum.mark === 'throttled'")
        .mark_rect(color=PALETTE[1], opacity=0.18)
        .encode(x=x, x2="until:Q"),
        line.mark_line(strokeWidth=1.5).encode(
            x=x, y=y, color=color, strokeDash=alt.StrokeDash("series:N", legend=None)
        ),
        line.mark_point(opacity=0, size=60).encode(x=x, y=y, tooltip=["series:N", "at:Q", "value:Q"]),
    ).properties(height=200)


LOAD_CHARTS: Mapping[str, Callable[[Rows], Any]] = {
    "streams": _streams,
    "throughput": _throughput,
    "soak": _soak,
}
"""Kind of a chart -> what draws its rows."""
