"""Draws the charts of a report with Altair. Needs the extra `report`.

Each function turns the rows of one kind of chart into a Vega-Lite chart. Texts and lines take the color of
the page (`currentColor`), so that one chart serves a light and a dark page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt

from cnnx.report.document import Chart, Scalar

Rows: TypeAlias = Sequence[Mapping[str, Scalar]]

# Okabe and Ito's palette for color-blind readers; a shape or a pattern of dashes repeats what a color says.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_VERDICTS = {
    "passed": ("#009E73", "circle"),
    "failed": ("#D55E00", "cross"),
    "inconclusive": ("#E69F00", "diamond"),
    "not judged": ("#8C8C8C", "square"),
}
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Version of Vega-Lite that Altair writes specifications for, as vl-convert names it."""

_INK = "currentColor"
_FONT = "system-ui, sans-serif"
_ROW = 26  # pixels for a row of a chart with names on its left
_LABEL = 170  # pixels that a name may take; the rest is in the tooltip


def spec_of(chart: Chart, *, ink: str = _INK, width: int | str = "container") -> dict[str, Any]:
    """The Vega-Lite specification of a chart, with its rows in it.

    Args:
        chart: a chart of a kind in `CHARTS`.
        ink: color of texts and lines.
        width: width in pixels, or "container".
    """
    drawn = CHARTS[chart.kind](chart.rows)
    drawn = drawn.properties(
        width=width, background="transparent", autosize={"type": "fit-x", "contains": "padding"}
    )
    drawn = drawn.configure(font=_FONT)
    drawn = drawn.configure_axis(
        labelColor=ink,
        titleColor=ink,
        gridColor=ink,
        gridOpacity=0.15,
        domainColor=ink,
        domainOpacity=0.4,
        tickColor=ink,
        tickOpacity=0.4,
        labelFontSize=12,
        titleFontSize=12,
        titleFontWeight="normal",
        labelLimit=_LABEL,
    )
    drawn = drawn.configure_legend(
        labelColor=ink,
        titleColor=ink,
        labelFontSize=12,
        orient="top",
        title=None,
        labelLimit=300,
        columns=3,
        symbolOpacity=1,
    )
    drawn = drawn.configure_view(stroke=None)
    found: dict[str, Any] = drawn.to_dict()
    return found


def _base(rows: Rows) -> Any:
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def _names(rows: Rows, column: str) -> list[Any]:
    """The values of a column, each once, in order."""
    return list(dict.fromkeys(row[column] for row in rows if row.get(column) is not None))


def _colors(rows: Rows, column: str) -> alt.Scale:
    """A color for each value of a column, in their order."""
    names = _names(rows, column)
    return alt.Scale(domain=names, range=[PALETTE[place % len(PALETTE)] for place in range(len(names))])


def _rowed(rows: Rows, column: str) -> tuple[alt.Y, int]:
    """An axis with a row for each value of a column, and its height."""
    names = _names(rows, column)
    return alt.Y(f"{column}:N", sort=names, title=None), max(2, len(names)) * _ROW


def _gates(rows: Rows) -> Any:
    """Value and 95 % interval of each gate, colored by verdict; the bar is its threshold."""
    base = _base(rows)
    y, height = _rowed(rows, "gate")
    known = [verdict for verdict in _VERDICTS if verdict in _names(rows, "verdict")]
    color = alt.Color(
        "verdict:N", scale=alt.Scale(domain=known, range=[_VERDICTS[each][0] for each in known])
    )
    shape = alt.Shape(
        "verdict:N", scale=alt.Scale(domain=known, range=[_VERDICTS[each][1] for each in known])
    )
    tooltip = ["gate:N", "value:Q", "low:Q", "high:Q", "threshold:Q", "verdict:N"]
    x = alt.X("low:Q", title="rate and 95 % interval", scale=alt.Scale(zero=False, padding=12))
    return alt.layer(
        base.mark_rule(strokeWidth=4, opacity=0.5).encode(x=x, x2="high:Q", y=y, color=color),
        base.mark_tick(thickness=3, size=18, color=_INK)
        .encode(x="threshold:Q", y=y)
        .transform_filter("datum.threshold > 0"),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x="value:Q", y=y, color=color, shape=shape, tooltip=tooltip
        ),
    ).properties(height=height)


def _damage(rows: Rows) -> Any:
    """Divergence with only one layer in INT8, layer by layer in the graph's order."""
    known = [float(row["nats"]) for row in rows if isinstance(row["nats"], (int, float))]
    top = max(known, default=0.0) or 1.0
    base = _base(rows)
    x = alt.X("layer:N", sort=_names(rows, "layer"), title=None, axis=_crowded(rows))
    y = alt.Y("nats:Q", title="nats, alone in INT8", axis=alt.Axis(format="~s"))
    tooltip = ["layer:N", "op:N", "nats:Q", "share:Q", "flips:Q"]
    return alt.layer(
        base.transform_filter("datum.state === 'INT8'")
        .mark_bar()
        .encode(x=x, y=y, color=alt.Color("op:N", scale=_colors(rows, "op")), tooltip=tooltip),
        base.transform_filter("datum.state === 'not finite'")
        .mark_bar(opacity=0.6)
        .encode(
            x=x, y=alt.datum(1.1 * top), color=alt.Color("op:N", scale=_colors(rows, "op")), tooltip=tooltip
        ),
        base.transform_filter("datum.state === 'not finite'")
        .mark_text(text="not finite", angle=270, align="right", color=_INK)
        .encode(x=x, y=alt.datum(1.1 * top)),
        base.transform_filter("datum.state === 'not in INT8'")
        .mark_point(shape="cross", color="#8C8C8C")
        .encode(x=x, y=alt.datum(0), tooltip=["layer:N", "op:N", "state:N"]),
    ).properties(height=260)


def _crowded(rows: Rows) -> alt.Axis:
    """An axis of layers: names below each bar as long as there are few."""
    return alt.Axis(labelAngle=-90, labelOverlap=True, labelLimit=120, labels=len(rows) <= 120)


def _layers(rows: Rows) -> Any:
    """Time of each layer in order of execution, colored by kind."""
    return (
        _base(rows)
        .mark_bar()
        .encode(
            x=alt.X("layer:N", sort=_names(rows, "layer"), title=None, axis=_crowded(rows)),
            y=alt.Y("ms:Q", title="median, ms"),
            color=alt.Color("kind:N", scale=_colors(rows, "kind")),
            tooltip=["layer:N", "op:N", "kind:N", "ms:Q", "share:Q"],
        )
        .properties(height=260)
    )


def _latency(rows: Rows) -> Any:
    """Distribution of each run by color, with its median and the 1st to 99th percentile."""
    y, height = _rowed(rows, "run")
    base = _base(rows)
    ends = [
        float(row["high"]) for row in rows if row["mark"] == "bin" and isinstance(row["high"], (int, float))
    ]
    starts = [
        float(row["low"]) for row in rows if row["mark"] == "bin" and isinstance(row["low"], (int, float))
    ]
    wide = bool(starts) and min(starts) > 0 and max(ends) > 20 * min(starts)
    scale = alt.Scale(type="log") if wide else alt.Scale(zero=False)
    x = alt.X("low:Q", title="ms per batch", scale=scale)
    tooltip = ["run:N", "p1:Q", "p25:Q", "p50:Q", "p75:Q", "p99:Q"]
    quantiles = base.transform_filter("datum.mark === 'quantiles'")
    return alt.layer(
        base.transform_filter("datum.mark === 'bin'")
        .mark_bar(color=PALETTE[0], height={"band": 0.7})
        .encode(
            x=x,
            x2="high:Q",
            y=y,
            opacity=alt.Opacity("density:Q", legend=None, scale=alt.Scale(range=[0.08, 1])),
        ),
        quantiles.mark_rule(color=_INK, opacity=0.6).encode(x="p1:Q", x2="p99:Q", y=y),
        quantiles.mark_tick(color=PALETTE[1], thickness=3, size=20).encode(x="p50:Q", y=y, tooltip=tooltip),
    ).properties(height=height)


def _times(rows: Rows) -> Any:
    """Successive runs over time, relative to the median of their run."""
    base = _base(rows)
    color = alt.Color("run:N", scale=_colors(rows, "run"))
    x = alt.X("second:Q", title="seconds since the first run")
    # Rare hiccups would flatten everything else; the distribution shows them.
    top = sorted(float(row["high"] or 0) for row in rows)[int(0.95 * (len(rows) - 1))]
    scale = alt.Scale(zero=False, domainMax=1.2 * top)
    dash = alt.StrokeDash("run:N", legend=None)
    return alt.layer(
        base.mark_area(opacity=0.15, clip=True).encode(
            x=x, y=alt.Y("low:Q", title="x median", scale=scale), y2="high:Q", color=color
        ),
        base.mark_line(clip=True).encode(x=x, y="middle:Q", color=color, strokeDash=dash),
        base.mark_point(opacity=0, size=60, clip=True).encode(
            x=x, y="middle:Q", tooltip=["run:N", "second:Q", "ms:Q"]
        ),
    ).properties(height=220)


def _memory(rows: Rows) -> Any:
    """Memory of each run, part by part."""
    y, height = _rowed(rows, "run")
    return (
        _base(rows)
        .mark_bar()
        .encode(
            x=alt.X("mib:Q", title="MiB", stack="zero"),
            y=y,
            color=alt.Color("part:N", scale=_colors(rows, "part"), sort=_names(rows, "part")),
            order=alt.Order("place:Q"),
            tooltip=["run:N", "part:N", "mib:Q"],
        )
        .properties(height=height)
    )


def _power(rows: Rows) -> Any:
    """Power over time, with the measured load shaded."""
    base = _base(rows)
    return alt.layer(
        base.transform_filter("datum.mark === 'load'")
        .mark_rect(color=_INK, opacity=0.12)
        .encode(x=alt.X("second:Q", title="seconds"), x2="until:Q"),
        base.transform_filter("datum.mark === 'power'")
        .mark_line(strokeWidth=1.5)
        .encode(
            x="second:Q",
            y=alt.Y("watts:Q", title="watts"),
            color=alt.Color("rail:N", scale=_colors(rows, "rail")),
            tooltip=["rail:N", "second:Q", "watts:Q"],
        ),
    ).properties(height=220)


CHARTS: Mapping[str, Callable[[Rows], Any]] = {
    "gates": _gates,
    "damage": _damage,
    "layers": _layers,
    "latency": _latency,
    "times": _times,
    "memory": _memory,
    "power": _power,
}
"""Kind of a chart -> what draws its rows."""
