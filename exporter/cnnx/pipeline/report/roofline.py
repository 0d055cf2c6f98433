"""The rows of the charts that explain a layer profile: the roofline, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnx.report.document import Chart, Scalar
from cnnx.report.tables.layers import SPENT, spent
from cnnx.report.words import Run, percent

_TERA = 1e-12
_MARGIN = 2.0  # how far the roofs extend beyond the layers

Rows = list[dict[str, Scalar]]


def explanation_charts(named: Sequence[tuple[str, Run]]) -> Iterator[Chart]:
    """Where the time of each explained profile goes, and the roofline of each whose peaks are known.

    Args:
        named: names that are unique among the runs, and the runs.
    """
    explained = [
        (name, run, found) for name, run in named if (found := run.result["layers"].get("explanation"))
    ]
    rows: Rows = [
        {"run": name, "part": SPENT[kind], "place": place, "share": round(share, 4)}
        for name, _, found in explained
        for place, (kind, share) in enumerate(found["shares"].items())
        if share
    ]
    if rows:
        text = " ".join(f"{name}: {found['sentence']}" for name, _, found in explained)
        yield Chart("spent", "Where the time goes", text, tuple(rows))
    for _, run, found in explained:
        layers = [layer for layer in found["layers"] if layer["intensity"] and layer["median_ns"]]
        if found["peaks"] and layers:
            title = f"Roofline, {run.full}, batch {run.result['latency']['batch']}"
            yield Chart("roofline", title, _text(found), tuple(_roofline(found, layers)))


def _text(found: Mapping[str, Any]) -> str:
    peaks = found["peaks"]
    return (
        f"A dot is a layer, its size its share of the time. The line above is the limit of {peaks['device']} "
        f"at {peaks['clock_mhz']:.0f} MHz. {spent(found)}"
    )


def _roofline(found: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Rows:
    """A dot for each layer that multiplies, and a roof for each type they multiply in."""
    peaks, total = found["peaks"], sum(layer["median_ns"] for layer in found["layers"])
    types = [kind for kind in peaks["operations"] if any(layer["type"] == kind for layer in layers)]
    rates = {kind: peaks["operations"][kind] * _TERA for kind in types}
    slope = peaks["bandwidth"] * _TERA
    ends = [layer["intensity"] for layer in layers] + [rate / slope for rate in rates.values()]
    left, right = min(ends) / _MARGIN, max(ends) * _MARGIN
    roofs: Rows = [
        {"mark": "roof", "type": kind, "intensity": at, "tops": min(slope * at, rate)}
        for kind, rate in rates.items()
        for at in (left, rate / slope, right)
    ]
    return [
        *roofs,
        *(
            {
                "mark": "layer",
                "layer": layer["name"],
                "type": layer["type"],
                "intensity": layer["intensity"],
                "tops": 2 * layer["macs"] / layer["median_ns"] * 1e9 * _TERA,
                "share": round(layer["median_ns"] / total, 4),
                "attained": percent(layer["attained"], 0),
                "bound": layer["bound"],
            }
            for layer in layers
            if layer["type"] in rates
        ),
    ]
