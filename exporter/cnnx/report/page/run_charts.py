"""Draws the charts of records: gates, damage, tensors, latency, layers, roofline, memory and power."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import altair as alt

from cnnx.report.page.marks import INK, PALETTE, Rows, base, colors, names, rowed

_VERDICTS = {
    "passed": ("#009E73", "circle"),
    "failed": ("#D55E00", "cross"),
    "inconclusive": ("#E69F00", "diamond"),
    "not judged": ("#8C8C8C", "square"),
}


def _gates(rows: Rows) -> Any:
    """Value and 95 % interval of each gate, colored by verdict; the bar is its threshold."""
    drawn = base(rows)
    y, height = rowed(rows, "gate")
    known = [verdict for verdict in _VERDICTS if verdict in names(rows, "verdict")]
    color = alt.Color(
        "verdict:N", scale=alt.Scale(domain=known, range=[_VERDICTS[each][0] for each in known])
    )
    shape = alt.Shape(
        "verdict:N", scale=alt.Scale(domain=known, range=[_VERDICTS[each][1] for each in known])
    )
    tooltip = ["gate:N", "value:Q", "low:Q", "high:Q", "threshold:Q", "verdict:N"]
    x = alt.X("low:Q", title="rate or ratio, and 95 % interval", scale=alt.Scale(zero=False, padding=12))
    return alt.layer(
        drawn.mark_rule(strokeWidth=4, opacity=0.5).encode(x=x, x2="high:Q", y=y, color=color),
        drawn.mark_tick(thickness=3, size=18, color=INK)
        .encode(x="threshold:Q", y=y)
        .transform_filter("datum.threshold > 0"),
        drawn.mark_point(filled=True, size=110, opacity=1).encode(
            x="value:Q", y=y, color=color, shape=shape, tooltip=tooltip
        ),
    ).properties(height=height)


def _damage(rows: Rows) -> Any:
    """Divergence with only one layer in INT8, layer by layer in the graph's order."""
    known = [float(row["nats"]) for row in rows if isinstance(row["nats"], (int, float))]
    top = max(known, default=0.0) or 1.0
    drawn = base(rows)
    x = alt.X("layer:N", sort=names(rows, "layer"), title=None, axis=_crowded(rows))
    y = alt.Y("nats:Q", title="nats, alone in INT8", axis=alt.Axis(format="~s"))
    tooltip = ["layer:N", "op:N", "nats:Q", "share:Q", "flips:Q"]
    return alt.layer(
        drawn.transform_filter("datum.state === 'INT8'")
        .mark_bar()
        .encode(x=x, y=y, color=alt.Color("op:N", scale=colors(rows, "op")), tooltip=tooltip),
        drawn.transform_filter("datum.state === 'not finite'")
        .mark_bar(opacity=0.6)
        .encode(
            x=x, y=alt.datum(1.1 * top), color=alt.Color("op:N", scale=colors(rows, "op")), tooltip=tooltip
        ),
        drawn.transform_filter("datum.state === 'not finite'")
        .mark_text(text="not finite", angle=270, align="right", color=INK)
        .encode(x=x, y=alt.datum(1.1 * top)),
        drawn.transform_filter("datum.state === 'not in INT8'")
        .mark_point(shape="cross", color="#8C8C8C")
        .encode(x=x, y=alt.datum(0), tooltip=["layer:N", "op:N", "state:N"]),
    ).properties(height=260)


def _tensors(rows: Rows) -> Any:
    """Signal-to-noise ratio of each tensor, and what the graph gives; tensors that fall are marked."""
    drawn = base(rows)
    x = alt.X("tensor:N", sort=names(rows, "tensor"), title=None, axis=_crowded(rows))
    y = alt.Y("db:Q", title="signal to noise, dB", scale=alt.Scale(zero=False, nice=True))
    color = alt.Color("series:N", scale=colors(rows, "series"))
    tooltip = ["tensor:N", "computed:N", "series:N", "db:Q", "state:N"]
    return alt.layer(
        drawn.mark_line().encode(x=x, y=y, color=color, strokeDash=alt.StrokeDash("series:N", legend=None)),
        drawn.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=color, tooltip=tooltip),
        drawn.transform_filter("datum.state === 'falls'")
        .mark_point(shape="cross", size=140, strokeWidth=2, color=INK)
        .encode(x=x, y=y, tooltip=tooltip),
    ).properties(height=260)


def _crowded(rows: Rows) -> alt.Axis:
    """An axis of layers: names below each bar as long as there are few."""
    return alt.Axis(labelAngle=-90, labelOverlap=True, labelLimit=120, labels=len(rows) <= 120)


_KINDS = {"compute": 0, "cast": 1, "reformat": 4, "quantize": 3}
"""Kind of a layer's time -> its place in the palette, the same in every chart."""
_KIND_COLORS = alt.Scale(domain=[*_KINDS], range=[PALETTE[place] for place in _KINDS.values()])


def _layers(rows: Rows) -> Any:
    """Time of each layer in order of execution, colored by kind."""
    return (
        base(rows)
        .mark_bar()
        .encode(
            x=alt.X("layer:N", sort=names(rows, "layer"), title=None, axis=_crowded(rows)),
            y=alt.Y("ms:Q", title="median, ms"),
            color=alt.Color("kind:N", scale=_KIND_COLORS),
            tooltip=["layer:N", "op:N", "kind:N", "ms:Q", "share:Q"],
        )
        .properties(height=260)
    )


def _latency(rows: Rows) -> Any:
    """Distribution of each run by color, with its median and the 1st to 99th percentile."""
    y, height = rowed(rows, "run")
    drawn = base(rows)
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
    quantiles = drawn.transform_filter("datum.mark === 'quantiles'")
    return alt.layer(
        drawn.transform_filter("datum.mark === 'bin'")
        .mark_bar(color=PALETTE[0], height={"band": 0.7})
        .encode(
            x=x,
            x2="high:Q",
            y=y,
            opacity=alt.Opacity("density:Q", legend=None, scale=alt.Scale(range=[0.08, 1])),
        ),
        quantiles.mark_rule(color=INK, opacity=0.6).encode(x="p1:Q", x2="p99:Q", y=y),
        quantiles.mark_tick(color=PALETTE[1], thickness=3, size=20).encode(x="p50:Q", y=y, tooltip=tooltip),
    ).properties(height=height)


def _times(rows: Rows) -> Any:
    """Successive runs over time, relative to the median of their run."""
    drawn = base(rows)
    color = alt.Color("run:N", scale=colors(rows, "run"))
    x = alt.X("second:Q", title="seconds of running")
    # Rare hiccups would flatten everything else; the distribution shows them.
    top = sorted(float(row["high"] or 0) for row in rows)[int(0.95 * (len(rows) - 1))]
    scale = alt.Scale(zero=False, domainMax=1.2 * top)
    dash = alt.StrokeDash("run:N", legend=None)
    return alt.layer(
        drawn.mark_area(opacity=0.15, clip=True).encode(
            x=x, y=alt.Y("low:Q", title="x median", scale=scale), y2="high:Q", color=color
        ),
        drawn.mark_line(clip=True).encode(x=x, y="middle:Q", color=color, strokeDash=dash),
        drawn.mark_point(opacity=0, size=60, clip=True).encode(
            x=x, y="middle:Q", tooltip=["run:N", "second:Q", "ms:Q"]
        ),
    ).properties(height=220)


def _memory(rows: Rows) -> Any:
    """Memory of each run, part by part."""
    y, height = rowed(rows, "run")
    return (
        base(rows)
        .mark_bar()
        .encode(
            x=alt.X("mib:Q", title="MiB", stack="zero"),
            y=y,
            color=alt.Color("part:N", scale=colors(rows, "part"), sort=names(rows, "part")),
            order=alt.Order("place:Q"),
            tooltip=["run:N", "part:N", "mib:Q"],
        )
        .properties(height=height)
    )


def _power(rows: Rows) -> Any:
    """Power over time, with the measured load shaded."""
    drawn = base(rows)
    return alt.layer(
        drawn.transform_filter("datum.mark === 'load'")
        .mark_rect(color=INK, opacity=0.12)
        .encode(x=alt.X("second:Q", title="seconds"), x2="until:Q"),
        drawn.transform_filter("datum.mark === 'power'")
        .mark_line(strokeWidth=1.5)
        .encode(
            x="second:Q",
            y=alt.Y("watts:Q", title="watts"),
            color=alt.Color("rail:N", scale=colors(rows, "rail")),
            tooltip=["rail:N", "second:Q", "watts:Q"],
        ),
    ).properties(height=220)


_SPENT = {"layers": 0, "launches": 5, "casts": 1, "reformats": 4, "Q/DQ": 3, "copies": 6}
"""Where time goes -> its place in the palette; conversions as in the chart of layers."""


def _spent(rows: Rows) -> Any:
    """Share of the time by kind, one bar a run."""
    y, height = rowed(rows, "run")
    known = [part for part in _SPENT if part in names(rows, "part")]
    scale = alt.Scale(domain=known, range=[PALETTE[_SPENT[part]] for part in known])
    return (
        base(rows)
        .mark_bar()
        .encode(
            x=alt.X(
                "share:Q",
                title="share of the time",
                stack="zero",
                axis=alt.Axis(format="%"),
                scale=alt.Scale(domainMax=1),
            ),
            y=y,
            color=alt.Color("part:N", scale=scale, sort=known, legend=alt.Legend(columns=2)),
            order=alt.Order("place:Q"),
            tooltip=["run:N", "part:N", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=height)
    )


_TYPES = {"int8": ("#009E73", "circle"), "fp16": ("#0072B2", "square"), "tf32": ("#E69F00", "diamond")}
_OTHER_TYPE = ("#D55E00", "triangle-up")


def _roofline(rows: Rows) -> Any:
    """Operations per second of each layer over its operations per byte, below the roof of its type."""
    drawn = base(rows)
    known = names(rows, "type")
    styles = [_TYPES.get(kind, _OTHER_TYPE) for kind in known]
    color = alt.Color("type:N", scale=alt.Scale(domain=known, range=[style[0] for style in styles]))
    shape = alt.Shape("type:N", scale=alt.Scale(domain=known, range=[style[1] for style in styles]))
    ticks = alt.Axis(format="~g", tickCount=5)
    x = alt.X("intensity:Q", title="operations per byte", scale=alt.Scale(type="log", nice=False), axis=ticks)
    y = alt.Y("tops:Q", title="TOPS", scale=alt.Scale(type="log"), axis=ticks)
    size = alt.Size("share:Q", legend=None, scale=alt.Scale(range=[25, 400]))
    tooltip = [
        "layer:N",
        "type:N",
        alt.Tooltip("share:Q", format=".1%"),
        "attained:N",
        "bound:N",
        alt.Tooltip("intensity:Q", format=".1f"),
        alt.Tooltip("tops:Q", format=".2f"),
    ]
    return alt.layer(
        drawn.transform_filter("datum.mark === 'roof'")
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, color=color),
        drawn.transform_filter("datum.mark === 'layer'")
        .mark_point(filled=True, opacity=0.75)
        .encode(x=x, y=y, color=color, shape=shape, size=size, tooltip=tooltip),
    ).properties(height=320)


RUN_CHARTS: Mapping[str, Callable[[Rows], Any]] = {
    "gates": _gates,
    "damage": _damage,
    "tensors": _tensors,
    "layers": _layers,
    "latency": _latency,
    "times": _times,
    "memory": _memory,
    "power": _power,
    "spent": _spent,
    "roofline": _roofline,
}
"""Kind of a chart -> what draws its rows."""
