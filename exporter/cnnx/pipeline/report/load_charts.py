"""The rows of the charts of streams and soaks."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnx.pipeline.report.charts import Rows
from cnnx.report.document import Chart, Scalar
from cnnx.report.words import Run, duration, several

_POINTS = 400
_CLOCKS = {"GPU": "gpu", "GPU memory": "gpu_memory", "CPU": "cpu"}
_UNITS = ((3600.0, 7200, "hours"), (60.0, 300, "minutes"), (1.0, 0, "seconds"))
_Windows = Sequence[Mapping[str, Any]]


def streams_charts(run: Run) -> Iterator[Chart]:
    """Latency by number of streams, and back to back also images per second."""
    result = run.result
    asked = f"p{result['percentile']:g}"
    period = None if result["fps"] is None else 1e3 / result["fps"]
    rows: Rows = [
        {"streams": count["streams"], "stream": place + 1, "series": series, "ms": each[key] / 1e6}
        for count in result["counts"]
        for place, each in enumerate(count["each"])
        for series, key in {"p50": "p50_ns", asked: "percentile_ns"}.items()
        if each[key] is not None
    ]
    if rows:
        text = f"p50 and {asked} of each stream, and the highest {asked}"
        if period is not None:
            rows.append({"series": "next frame", "ms": period})
            cameras = several(result["cameras"], "camera")
            text += f"; the line is when the next frame is due: {cameras} fit at {result['fps']:g} fps"
        yield Chart("streams", f"Latency by number of streams, {run.full}", f"{text}.", tuple(rows))
    if period is None:
        rates: Rows = [
            {"streams": count["streams"], "rate": round(count["images_per_second"], 3)}
            for count in result["counts"]
        ]
        most = max(result["counts"], key=lambda count: float(count["images_per_second"]))
        text = (
            f"All streams together; {several(most['streams'], 'stream')} reach the most, "
            f"{most['images_per_second']:,.1f} images/s."
        )
        yield Chart("throughput", f"Images per second by number of streams, {run.full}", text, tuple(rates))


def soak_charts(run: Run) -> Iterator[Chart]:
    """Latency, clocks, temperatures and power over time; what was not read has no chart."""
    scale, unit = next((s, word) for s, least, word in _UNITS if run.result["seconds"] >= least)
    windows = run.result["windows"]
    each = -(-len(windows) // _POINTS)
    groups = [windows[start : start + each] for start in range(0, len(windows), each)]
    times = [round(group[0]["start_ns"] / 1e9 / scale, 4) for group in groups]
    ends = [*times[1:], round(run.result["seconds"] / scale, 4)]
    held: Rows = [
        {"mark": "throttled", "at": at, "until": until, "time": unit}
        for group, at, until in zip(groups, times, ends, strict=True)
        if any(window["throttled"] for window in group)
    ]
    shaded = "; shaded: a limit reduced the GPU's clock" if held else ""
    took = duration(run.result["seconds"])
    for title, axis, series, text in _panels(groups):
        rows: Rows = [
            {"mark": "line", "series": name, "at": at, "value": value, "axis": axis, "time": unit}
            for name, values in series.items()
            for at, value in zip(times, values, strict=True)
            if value is not None
        ]
        if rows:
            known = ", ".join(dict.fromkeys(str(row["series"]) for row in rows))
            yield Chart(
                "soak", f"{title}, {run.full}", f"{text} over {took}: {known}{shaded}.", (*held, *rows)
            )


def _panels(
    groups: Sequence[_Windows],
) -> Iterator[tuple[str, str, dict[str, list[Scalar]], str]]:
    """Title, axis, the values of each series, and what they are."""
    times = {f"p{share}": [_middle(group, f"p{share}_ns", 1e-6) for group in groups] for share in (50, 99)}
    yield "Latency during the soak", "ms", times, "Percentiles of the time of a run"
    clocks = {name: [_lowest_clock(group, key) for group in groups] for name, key in _CLOCKS.items()}
    yield "Clocks during the soak", "MHz", clocks, "Lowest clocks that were read"
    names = dict.fromkeys(
        name for group in groups for window in group for name in window["state"]["temperatures_c"]
    )
    heat = {name: [_highest(group, name) for group in groups] for name in names}
    yield "Temperature during the soak", "°C", heat, "Highest temperatures that were read"
    power: dict[str, list[Scalar]] = {"total": [_middle(group, "power_mw", 1e-3) for group in groups]}
    yield "Power during the soak", "W", power, "Mean power"


def _middle(group: _Windows, key: str, factor: float) -> Scalar:
    known = [window[key] for window in group if window[key] is not None]
    return round(statistics.median(known) * factor, 6) if known else None


def _lowest_clock(group: _Windows, part: str) -> Scalar:
    clocks = ((window["state"][part] or {}).get("now_mhz") for window in group)
    return min((clock for clock in clocks if clock is not None), default=None)


def _highest(group: _Windows, name: str) -> Scalar:
    seen = itertools.chain(*(window["state"]["temperatures_c"].items() for window in group))
    return max((celsius for part, celsius in seen if part == name), default=None)
