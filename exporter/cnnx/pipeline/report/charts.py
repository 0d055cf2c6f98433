"""The rows of a report's charts. Thousands of samples become a few hundred marks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cnnx.errors import BundleError, UsageError
from cnnx.measure.power import EnergyMeasurement, EnergyRows, SensorInfo
from cnnx.record import Record
from cnnx.report.document import Chart, Scalar
from cnnx.report.words import Run
from cnnx.schema import from_plain

_BINS, _WINDOWS = 48, 200
_WIDE = 20  # largest over smallest time, above which the axis is logarithmic
_MOST_RUNS, _MOST_LINES = 40, 8  # runs in a chart with a row each, and with a line each
_POWER_NS = 500_000_000
_MIB = 2**20
_PARTS = {
    "CUDA context": "context_bytes",
    "network on the GPU": "gpu_bytes",
    "CPU and GPU": "shared_bytes",
    "libraries": "libraries_bytes",
    "network on the host": "added_bytes",
}

Rows: TypeAlias = list[dict[str, Scalar]]
_Times: TypeAlias = NDArray[np.float64]


def gate_chart(name: str, gates: Iterable[Mapping[str, Any]]) -> Iterator[Chart]:
    """Value and interval of the gates that are rates; figures with a unit have no common axis with them."""
    rows: Rows = [
        {
            "gate": gate["name"],
            "value": gate["value"],
            "low": gate["interval"]["low"],
            "high": gate["interval"]["high"],
            "threshold": gate["threshold"],
            "verdict": gate["verdict"],
        }
        for gate in gates
        if gate["interval"] and not gate.get("unit")
    ]
    if rows:
        worst = min(rows, key=lambda row: float(row["value"] or 0))
        lowest = f"{worst['gate']}, {worst['value']:.4f}"
        text = f"Values with their 95 % intervals; bars: thresholds. The lowest value: {lowest}."
        yield Chart("gates", f"Gates of {name}", text, tuple(rows))


def damage_chart(findings: Mapping[str, Any], name: str = "") -> Chart:
    """Divergence of each layer alone in INT8, in graph order.

    Args:
        findings: result of a diagnosis record.
        name: what was diagnosed.
    """
    rows: Rows = [
        {
            "place": layer["place"],
            "layer": layer["layer"],
            "op": layer["op"],
            "nats": layer["likeness"]["divergence"],
            "share": layer["share"],
            "flips": layer["flips"],
            "state": "not finite" if layer["likeness"]["divergence"] is None else "INT8",
        }
        for layer in findings["layers"]
    ]
    blank: dict[str, Scalar] = {"nats": None, "share": None, "flips": None, "state": "not in INT8"}
    rows += [
        {"place": each["place"], "layer": each["layer"], "op": each["op"], **blank}
        for each in findings["others"]
    ]
    rows.sort(key=lambda row: int(row["place"] or 0))
    largest = max(findings["layers"], key=lambda layer: layer["share"], default=None)
    text = f"{len(findings['layers'])} layers in INT8"
    if largest and largest["share"]:
        text += f"; {largest['layer']} alone accounts for {largest['share']:.1%} of the sum"
    return Chart("damage", f"Damage along the network{f', {name}' if name else ''}", f"{text}.", tuple(rows))


def tensor_chart(findings: Mapping[str, Any], name: str = "") -> Chart:
    """Signal-to-noise ratio of each tensor, and what the graph gives it, in graph order.

    Args:
        findings: result of a record of tensors.
        name: what was compared.
    """
    what = "graph" if findings["how"] == "graph" else "engine"
    numbers = [str(number) for number in range(1, len(findings["rows"]) + 1)]
    names = _told_apart([row["tensor"] for row in findings["rows"]], numbers)
    series = {what: "db"}
    if any(row["db"] != row["expected_db"] for row in findings["rows"]):
        series = {"expected": "expected_db", what: "db"}  # drawn in this order
    rows: Rows = [
        {
            "place": place,
            "tensor": names[place],
            "computed": ", ".join(row["nodes"][-3:]),
            "series": kind,
            "db": row[key],
            "state": "falls" if row["falls"] and key == "db" else "",
        }
        for place, row in enumerate(findings["rows"])
        for kind, key in series.items()
    ]
    first = findings["first"]
    text = f"{first['tensor']} is the first that falls." if first else "No tensor falls."
    return Chart(
        "tensors", f"Signal-to-noise ratio along the network{f', {name}' if name else ''}", text, tuple(rows)
    )


def layer_chart(run: Run) -> Chart:
    """Time of each layer, in order of execution."""
    profile = run.result["layers"]
    numbers = [str(number) for number in range(1, len(profile["layers"]) + 1)]
    names = _told_apart([layer["name"] for layer in profile["layers"]], numbers)
    total = sum(layer["median_ns"] for layer in profile["layers"]) or 1.0
    rows: Rows = [
        {
            "place": place,
            "layer": names[place],
            "op": layer["op"],
            "kind": layer["kind"],
            "ms": layer["median_ns"] / 1e6,
            "share": round(layer["median_ns"] / total, 4),
        }
        for place, layer in enumerate(profile["layers"])
    ]
    shares = ", ".join(f"{kind} {share:.1%}" for kind, share in profile["shares"].items())
    title = f"Time by layer, {run.full}, batch {run.result['latency']['batch']}"
    return Chart("layers", title, f"Medians of {profile['runs']} profiling runs: {shares}.", tuple(rows))


def latency_charts(runs: Sequence[Run]) -> Iterator[Chart]:
    """Distribution of all runs, and their course over time, of the series that the figures are of."""
    named = list(zip(short_names(runs), map(_main_ms, runs), strict=True))
    drawn = named[:_MOST_RUNS]
    longest = max(float(np.percentile(times, 99)) for _, times in drawn)
    wide = longest > _WIDE * min(times.min() for _, times in drawn)
    rows: Rows = [row for name, times in drawn for row in _distribution(name, times, wide=bool(wide))]
    fastest, slowest = (choose(named, key=lambda each: float(np.median(each[1]))) for choose in (min, max))
    text = f"{fastest[0]} has the shortest median, {np.median(fastest[1]):.3f} ms"
    if len(named) > 1:
        text += f", {slowest[0]} the longest, {np.median(slowest[1]):.3f} ms"
    legend = " Darker: more runs took that long; bar: median; line: 1st to 99th percentile."
    title = f"Distribution of latency{_cut(len(runs), _MOST_RUNS)}"
    yield Chart("latency", title, f"{text}.{legend}", tuple(rows))
    course: Rows = [row for name, times in named[:_MOST_LINES] for row in _course(name, times)]
    text = (
        "Successive runs as multiples of the run's median, with their 10th to 90th percentile: a trend "
        "points to heat or to another program."
    )
    yield Chart("times", f"Latency over time{_cut(len(runs), _MOST_LINES)}", text, tuple(course))


def _cut(count: int, most: int) -> str:
    """The end of a title if a chart does not show everything."""
    return f", the first {most} of {count} runs" if count > most else ""


def short_names(runs: Sequence[Run]) -> list[str]:
    """A short name for each run, unique among them: if need be with engine, device, time or a number."""
    names = list(map(_short, runs))
    subjects = [run.result["subject"] for run in runs]
    names = _told_apart(names, [each.get("engine") or "" for each in subjects])
    names = _told_apart(names, [each["artefact"] for each in subjects])
    names = _told_apart(names, [each["device"].removeprefix("CPU: ") for each in subjects])
    names = _told_apart(names, [run.date[11:] for run in runs])
    return _told_apart(names, [f"({number})" for number in range(1, len(runs) + 1)])


def _told_apart(names: Sequence[str], details: Sequence[str]) -> list[str]:
    """Names with a detail, where several runs have one name and it tells them apart."""
    found: dict[str, set[str]] = {}
    for name, detail in zip(names, details, strict=True):
        found.setdefault(name, set()).add(detail)
    return [
        f"{name} {detail}" if len(found[name]) > 1 and detail else name
        for name, detail in zip(names, details, strict=True)
    ]


def _short(run: Run) -> str:
    subject, result = run.result["subject"], run.result
    graph = " graph" if (result.get("conditions") or {}).get("cuda_graph") else ""
    artefact = " original" if subject["artefact"] == "original" else ""
    return f"{subject['network']} {subject['precision']}{artefact} b{result['latency']['batch']}{graph}"


def _main_ms(run: Run) -> _Times:
    """The samples behind a measurement's figures, in milliseconds."""
    latency = run.result["latency"]
    if run.result["figures"]["of"] == "end to end":
        return np.asarray(latency["samples_ns"]) / 1e6
    parts = latency["parts"]
    whole: _Times = np.sum([parts["h2d_ns"], parts["compute_ns"], parts["d2h_ns"]], axis=0) / 1e6
    return whole


def _distribution(name: str, times: _Times, *, wide: bool) -> Rows:
    """Bins from the shortest run to the 99th percentile, and quantiles; `wide`: for a logarithmic axis."""
    p1, p25, p50, p75, p99 = (round(float(each), 6) for each in np.percentile(times, (1, 25, 50, 75, 99)))
    ends = max(times.min(), 1e-6), max(p99, times.min() * 1.0001, 2e-6)
    edges = (np.geomspace if wide else np.linspace)(*ends, min(_BINS, len(times)) + 1)
    counts, _ = np.histogram(times, edges)
    bins: Rows = [
        {
            "run": name,
            "mark": "bin",
            "low": round(float(low), 6),
            "high": round(float(high), 6),
            "density": float(count / counts.max()),
        }
        for (low, high), count in zip(itertools.pairwise(edges), counts, strict=True)
        if count
    ]
    return [
        *bins,
        {"run": name, "mark": "quantiles", "p1": p1, "p25": p25, "p50": p50, "p75": p75, "p99": p99},
    ]


def _course(name: str, times: _Times) -> Rows:
    """Successive runs in at most `_WINDOWS` windows, relative to the median of all."""
    median = float(np.median(times)) or 1.0
    per_window = max(1, -(-len(times) // _WINDOWS))
    frame = pl.DataFrame({"ms": times, "times": times / median, "second": np.cumsum(times) / 1e3})
    windows = (
        frame.group_by(window=pl.int_range(pl.len()) // per_window, maintain_order=True)
        .agg(
            second=pl.col("second").last().round(4),
            low=pl.col("times").quantile(0.1).round(4),
            middle=pl.col("times").median().round(4),
            high=pl.col("times").quantile(0.9).round(4),
            ms=pl.col("ms").median().round(6),
        )
        .drop("window")
    )
    return [{"run": name, **row} for row in windows.to_dicts()]


def memory_chart(runs: Sequence[Run]) -> Iterator[Chart]:
    """Measured memory of each run, part by part."""
    rows: Rows = []
    for name, run in list(zip(short_names(runs), runs, strict=True))[:_MOST_RUNS]:
        memory = dict(run.result["memory"])
        if memory.get("shared_bytes") is not None:  # on a Jetson, it contains all others
            memory = {"shared_bytes": memory["shared_bytes"]}
        if memory.get("gpu_bytes") is not None and memory.get("context_bytes") is not None:
            memory["gpu_bytes"] -= memory["context_bytes"]  # the process's memory includes the context
        for place, (part, key) in enumerate(_PARTS.items()):
            if (found := memory.get(key)) is not None and found > 0:
                rows.append({"run": name, "part": part, "place": place, "mib": round(found / _MIB, 3)})
    if rows:
        text = (
            "Memory of a separate process that runs the network once; what the platform does not report is "
            "left out."
        )
        yield Chart("memory", f"Memory{_cut(len(runs), _MOST_RUNS)}", text, tuple(rows))


def power_chart(record: Record) -> Iterator[Chart]:
    """Half-second means of the total, or of each rail without a total, with the measured load."""
    plain = record.result["measured"]
    measured = from_plain(
        EnergyRows, plain, where=record.date, error=BundleError, at="measured"
    ).measurement()
    start, span = measured.idle_before.start_ns, measured.load.span
    load: dict[str, Scalar] = {
        "mark": "load",
        "second": (span.start_ns - start) / 1e9,
        "until": (span.end_ns - start) / 1e9,
    }
    rows: Rows = [
        {
            "mark": "power",
            "rail": name,
            "second": (index + 0.5) * _POWER_NS / 1e9,
            "watts": round(power / 1000, 4),
        }
        for name, powers in _rails(measured).items()
        for index, power in enumerate(powers)
    ]
    text = "Power in means of half a second; shaded: the measured load; before and after it: idle."
    if rows:
        yield Chart("power", f"Power, {record.subject}", text, ({"rail": None, "watts": None, **load}, *rows))


def _rails(measured: EnergyMeasurement) -> dict[str, tuple[float, ...]]:
    """Power of the total, or of each rail, from the first idle period to the last."""
    sensor = measured.trace.sensor
    whole = {"total": sensor.total.rails} if sensor.total.rails else {}
    return {name: _powers(measured, rails) for name, rails in (whole or _each(sensor)).items()}


def _each(sensor: SensorInfo) -> dict[str, tuple[str, ...]]:
    return {rail.name: (rail.name,) for rail in sensor.rails}


def _powers(measured: EnergyMeasurement, rails: tuple[str, ...]) -> tuple[float, ...]:
    """Mean powers; empty if readings failed at either end."""
    start, end = measured.idle_before.start_ns, measured.idle_after.end_ns
    try:
        return measured.trace.powers_mw(rails, start, end, window_ns=_POWER_NS)
    except UsageError:
        return ()
