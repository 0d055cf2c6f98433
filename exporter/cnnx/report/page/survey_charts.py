"""Draws the charts of a survey, after the figures of Canziani, Paszke and Culurciello 2016."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import altair as alt

from cnnx.report.page.marks import INK, PALETTE, Rows, base, colors, names, rowed

_THEIRS = "Canziani"
_TOOLTIP = ("network:N", "precision:N", "origin:N")
_BARS = 18  # pixels a bar


def _top1(rows: Rows) -> Any:
    """Accuracy of each network, sorted, colored by origin; lines: 95 % intervals."""
    drawn = base(rows)
    y = alt.Y("name:N", sort=None, title=None)
    x = alt.X("top1:Q", title="top-1, %", scale=alt.Scale(domain=[0, 100]))
    color = alt.Color("origin:N", scale=_origins(rows))
    return alt.layer(
        drawn.mark_bar(opacity=0.85).encode(
            x=x, y=y, color=color, tooltip=[*_TOOLTIP, "top1:Q", "low:Q", "high:Q"]
        ),
        drawn.transform_filter("isValid(datum.low)").mark_rule(color=INK).encode(x="low:Q", x2="high:Q", y=y),
    ).properties(height=_BARS * len(names(rows, "name")))


def _scatter(rows: Rows, x: alt.X, y: alt.Y, *extra: str, size: alt.Size | None = None) -> Any:
    """Points with names: filled if they are the survey's, hollow if they are the paper's."""
    column = "origin" if any("origin" in row for row in rows) else "precision"
    encoded: dict[str, Any] = {
        "x": x,
        "y": y,
        "color": alt.Color(
            f"{column}:N", scale=_origins(rows) if column == "origin" else colors(rows, column)
        ),
        "tooltip": [*(each for each in _TOOLTIP if each.split(":")[0] in rows[0]), *extra],
    }
    if size is not None:
        encoded["size"] = size
    shape = None
    if any(row.get("precision") for row in rows) and column == "origin":
        shape = alt.Shape("precision:N", scale=alt.Scale(domain=names(rows, "precision")))
    filled = {**encoded, "shape": shape} if shape else encoded
    theirs = [row for row in rows if str(row.get("origin", "")).startswith(_THEIRS)]
    ours = [row for row in rows if row not in theirs]
    layers = [base(ours).mark_point(filled=True, opacity=0.75, size=70).encode(**filled)]
    if theirs:
        hollow = base(theirs).mark_point(opacity=0.8, strokeDash=[3, 2], size=70)
        layers.append(hollow.encode(**encoded))
    return alt.layer(*layers, _labels(rows, x, y)).properties(height=420)


def _labels(rows: Rows, x: alt.X, y: alt.Y) -> Any:
    """The name of each network, once."""
    first = list({row["network"]: row for row in reversed(rows)}.values())
    first += [row for row in rows if row.get("front") and row not in first]
    text = base(first).mark_text(align="left", dx=7, dy=-5, fontSize=10, color=INK, limit=120)
    return text.encode(x=x, y=y, text="network:N")


def _origins(rows: Rows) -> alt.Scale:
    """A color for each origin of an accuracy: gray for the paper's."""
    found = sorted(names(rows, "origin"), key=lambda name: name.startswith(_THEIRS))
    *ours, gray = PALETTE
    shades = [
        gray if name.startswith(_THEIRS) else ours[place % len(ours)] for place, name in enumerate(found)
    ]
    return alt.Scale(domain=found, range=shades)


def _accuracy_ops(rows: Rows) -> Any:
    """Accuracy against operations; the area of a ball is the number of parameters."""
    size = alt.Size("parameters_m:Q", title="M parameters", scale=alt.Scale(range=[15, 1500]), legend=None)
    return _scatter(
        rows,
        alt.X("gops:Q", title="G-ops", scale=alt.Scale(type="log")),
        alt.Y("top1:Q", title="top-1, %", scale=alt.Scale(zero=False, padding=20)),
        "top1:Q",
        "gops:Q",
        "parameters_m:Q",
        size=size,
    )


def _lines(rows: Rows, y: alt.Y, *extra: str) -> Any:
    """A line for each network and precision against the batch size."""
    drawn = base(rows)
    shades = colors(rows, "network") if len(names(rows, "network")) <= 7 else alt.Scale(scheme="tableau20")
    encoded: dict[str, Any] = {
        "x": alt.X("batch:O", title="images per batch"),
        "y": y,
        "color": alt.Color("network:N", scale=shades),
        "detail": "series:N",
        "strokeDash": alt.StrokeDash("precision:N", sort=names(rows, "precision")),
    }
    return alt.layer(
        drawn.mark_line().encode(**encoded),
        drawn.mark_point(filled=True, size=45).encode(
            **{key: encoded[key] for key in ("x", "y", "color")},
            tooltip=["network:N", "precision:N", "batch:Q", *extra],
        ),
    ).properties(height=380)


def _time_batch(rows: Rows) -> Any:
    """Time per image against the batch size."""
    y = alt.Y("ms:Q", title="ms per image", scale=alt.Scale(type="log"))
    return _lines(rows, y, "ms:Q", "low:Q", "high:Q")


def _power_batch(rows: Rows) -> Any:
    """Power under load against the batch size."""
    return _lines(rows, alt.Y("watts:Q", title="watts", scale=alt.Scale(zero=True)), "watts:Q")


def _memory_batch(rows: Rows) -> Any:
    """Memory against the batch size."""
    return _lines(rows, alt.Y("mib:Q", title="MiB", scale=alt.Scale(type="log", padding=12)), "mib:Q")


def _memory_parameters(rows: Rows) -> Any:
    """Memory against the size of the parameters."""
    x = alt.X("parameters_mib:Q", title="MiB of parameters", scale=alt.Scale(type="log"))
    return _scatter(
        rows,
        x,
        alt.Y("mib:Q", title="MiB", scale=alt.Scale(type="log", padding=12)),
        "mib:Q",
        "parameters_mib:Q",
    )


def _ops_time(rows: Rows) -> Any:
    """Operations against time per image; the shape is the batch size."""
    drawn = base(rows)
    x = alt.X("ms:Q", title="ms per image", scale=alt.Scale(type="log"))
    y = alt.Y("gops:Q", title="G-ops", scale=alt.Scale(type="log"))
    tooltip = ["network:N", "precision:N", "batch:Q", "gops:Q", "ms:Q"]
    color = alt.Color("precision:N", scale=colors(rows, "precision"))
    shape = alt.Shape("batch:N", sort=names(rows, "batch"))
    return alt.layer(
        drawn.mark_point(filled=True, opacity=0.75, size=70).encode(
            x=x, y=y, color=color, shape=shape, tooltip=tooltip
        ),
        _labels(rows, x, y),
    ).properties(height=420)


def _ops_power(rows: Rows) -> Any:
    """Operations against power under load."""
    x = alt.X("gops:Q", title="G-ops", scale=alt.Scale(type="log"))
    y = alt.Y("watts:Q", title="watts", scale=alt.Scale(zero=True))
    return _scatter(rows, x, y, "gops:Q", "watts:Q")


def _accuracy_rate(rows: Rows) -> Any:
    """Accuracy against images per second, with the Pareto front of each image set."""
    x = alt.X("rate:Q", title="images per second", scale=alt.Scale(type="log"))
    y = alt.Y("top1:Q", title="top-1, %", scale=alt.Scale(zero=False, padding=20))
    front = (
        base(rows)
        .transform_filter("datum.front")
        .mark_line(interpolate="step-before", opacity=0.6, strokeWidth=1.5)
        .encode(x=x, y=y, color=alt.Color("origin:N", scale=_origins(rows)))
    )
    return alt.layer(front, _scatter(rows, x, y, "top1:Q", "rate:Q")).properties(height=420)


def _density(rows: Rows) -> Any:
    """Accuracy per million parameters."""
    y, _ = rowed(rows, "name")
    return (
        base(rows)
        .mark_bar(opacity=0.85)
        .encode(
            x=alt.X("density:Q", title="top-1, %, per million parameters", scale=alt.Scale(type="symlog")),
            y=y,
            color=alt.Color("origin:N", scale=_origins(rows)),
            tooltip=[*_TOOLTIP, "density:Q"],
        )
        .properties(height=_BARS * len(names(rows, "name")))
    )


SURVEY_CHARTS: Mapping[str, Callable[[Rows], Any]] = {
    "top1": _top1,
    "accuracy-ops": _accuracy_ops,
    "time-batch": _time_batch,
    "power-batch": _power_batch,
    "memory-batch": _memory_batch,
    "memory-parameters": _memory_parameters,
    "ops-time": _ops_time,
    "ops-power": _ops_power,
    "accuracy-rate": _accuracy_rate,
    "density": _density,
}
"""Kind of a chart -> what draws its rows."""
