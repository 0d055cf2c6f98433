"""Table of soaks: the first minute, the last minute and the whole time."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.measure.load.soak import ENDS_S
from cnnx.measure.spread import UNSTEADY
from cnnx.report.table import Case, Column, Figures, Remark, Suite, Table, Tone, table_of
from cnnx.report.words import Run, duration, graph_words, percent, scaled, shared

_MS = 1e-6
_ENDED = {"interrupted": "stopped by Ctrl-C", "failed": "a run failed"}


@dataclass(frozen=True, slots=True)
class _Part:
    """Some windows of a soak."""

    run: Run
    name: str
    windows: Sequence[Mapping[str, Any]]

    def middle(self, key: str) -> float | None:
        """Median over the windows that have a figure."""
        known = [window[key] for window in self.windows if window[key] is not None]
        return statistics.median(known) if known else None

    def clock(self, part: str) -> str:
        """Lowest clock of a part, in MHz."""
        clocks = [(window["state"][part] or {}).get("now_mhz") for window in self.windows]
        known = [clock for clock in clocks if clock is not None]
        return scaled(min(known), 1, 0) if known else ""

    @property
    def hottest(self) -> str:
        """Highest temperature of NVML's GPU, or else of any part, in degrees Celsius."""
        seen = [pair for window in self.windows for pair in window["state"]["temperatures_c"].items()]
        found = [celsius for name, celsius in seen if name == "GPU"] or [celsius for _, celsius in seen]
        return scaled(max(found), 1, 0) if found else ""

    @property
    def images_per_second(self) -> float:
        """Images per second, without reading the state of the machine."""
        busy = sum(window["busy_ns"] for window in self.windows)
        return float(self.run.result["batch"] * sum(window["runs"] for window in self.windows) * 1e9 / busy)


def soak_table(runs: Sequence[Run]) -> Table:
    """Latency, clocks, temperature and power at the beginning, at the end, and over the whole time."""
    groups = [list(_parts(run)) for run in runs]
    device = shared(runs, _device)
    columns: tuple[Column[_Part], ...] = (
        Column("date", lambda part: part.run.date, fixed=True, once=True, known=True),
        Column("what", lambda part: part.run.name, fixed=True, once=True),
        Figures("batch", lambda part: str(part.run.result["batch"]), once=True),
        Column("CUDA graph", lambda part: _graph(part.run), fixed=True, once=True, known=True),
        Column("of", lambda part: part.run.result["of"], once=True, drop=3),
        Column("time", lambda part: part.name, fixed=True),
        Figures("p50 ms", lambda part: scaled(part.middle("p50_ns"), _MS, 3)),
        Figures("p99 ms", lambda part: scaled(part.middle("p99_ns"), _MS, 3)),
        Figures(
            "longest ms", lambda part: scaled(max(w["longest_ns"] for w in part.windows), _MS, 2), drop=2
        ),
        Figures("images/s", lambda part: scaled(part.images_per_second, 1, 1)),
        Figures("GPU MHz", lambda part: part.clock("gpu"), known=True),
        Figures("CPU MHz", lambda part: part.clock("cpu"), known=True, drop=1),
        Figures("°C", lambda part: part.hottest, known=True),
        Figures("W", lambda part: scaled(part.middle("power_mw"), 1e-3, 2), known=True),
    )
    title = " on ".join(filter(None, ("Soak", device)))
    return table_of(title, columns, groups, lined=len(groups) > 1, remarks=_remarks(runs), suite=_suite(runs))


def _parts(run: Run) -> Iterator[_Part]:
    """The beginning, the end and the whole; only the whole if it has fewer than three windows."""
    windows = run.result["windows"]
    start, end, span = windows[0]["start_ns"], windows[-1]["start_ns"], _ends_s(windows)
    if len(windows) > 2:
        first = [window for window in windows if window["start_ns"] < start + span * 1e9]
        last = [window for window in windows if window["start_ns"] > end - span * 1e9]
        yield _Part(run, f"first {duration(span)}", first)
        yield _Part(run, f"last {duration(span)}", last)
    yield _Part(run, f"all {duration(run.result['seconds'])}", windows)


def _ends_s(windows: Sequence[Mapping[str, Any]]) -> float:
    """Length of the beginning and of the end that are compared; see `cnnx.measure.load.trend`."""
    return float(min(ENDS_S, (windows[-1]["start_ns"] - windows[0]["start_ns"]) / 3e9))


def _device(run: Run) -> str:
    return f"{run.result['subject']['runtime']}, {run.result['subject']['device']}"


def _graph(run: Run) -> str:
    return graph_words(run.result).removeprefix("CUDA graph ")


def _remarks(runs: Sequence[Run]) -> Iterator[Remark]:
    each = duration(round(runs[0].result["windows"][0]["span_ns"] / 1e9, 1))
    yield Remark(
        f"p50 and p99: medians of windows of {each}. Clocks: lowest; temperature: highest; power: median."
    )
    for run in runs:
        yield from _cut(run)
        yield from _drift(run)
        yield from _throttling(run)
        yield from _validity(run)
        yield _power(run)
    yield from (Remark(run.result["remark"]) for run in runs if run.result["remark"])


def _cut(run: Run) -> Iterator[Remark]:
    result = run.result
    if result["ended"] != "complete":
        why = ": ".join(filter(None, (_ENDED[result["ended"]], result["reason"])))
        text = f"{run.full}: {duration(result['seconds'])} of {duration(result['asked_s'])}, {why}"
        yield Remark(text, "cut short", "bad")


def _drift(run: Run) -> Iterator[Remark]:
    drift = run.result["drift"]
    if drift is None:
        yield Remark(f"{run.full}: too few windows for a drift of p50")
        return
    ends, change = drift["ends_interval"], drift["interval"]
    tone: Tone = "open"
    if ends["low"] > UNSTEADY:
        tone = "bad"
    elif max(abs(ends["low"]), abs(ends["high"])) <= UNSTEADY:
        tone = "good"
    part = duration(_ends_s(run.result["windows"]))
    yield Remark(
        f"{run.full}: p50 moved by {drift['ends']:+.1%} from the first {part} to the last (95 % interval "
        f"{ends['low']:+.1%} .. {ends['high']:+.1%}); robust trend over {duration(run.result['seconds'])} "
        f"{drift['change']:+.1%} ({change['low']:+.1%} .. {change['high']:+.1%})",
        "drift",
        tone,
    )


def _throttling(run: Run) -> Iterator[Remark]:
    share = run.result["throttled_share"]
    if share is not None:
        text = f"{run.full}: a limit reduced the GPU's clock for {percent(share)} of the time"
        yield Remark(text, "throttling", "good" if share == 0 else "bad" if share > 0.01 else "open")


def _validity(run: Run) -> Iterator[Remark]:
    for finding in run.result["validity"]["findings"]:
        yield Remark(f"{run.full}: {finding['reason']}; {finding['hint']}", "invalid", "bad")
    for finding in run.result["validity"]["remarks"]:
        yield Remark(f"{run.full}: {finding['reason']}; {finding['hint']}", "remark", "open")


def _power(run: Run) -> Remark:
    sensor = run.result["sensor"]
    if sensor is None:
        return Remark(f"{run.full}: no power: {run.result['no_power']}")
    return Remark(f"{run.full}: {sensor['total']['covers']}", sensor["name"])


def _suite(runs: Sequence[Run]) -> Suite:
    """A case for each soak: its drift from beginning to end; skipped if it is invalid or was cut short."""
    return Suite("soak", "cnnx.soak", cases=tuple(map(_case, runs)))


def _case(run: Run) -> Case:
    result, subject, drift = run.result, run.result["subject"], run.result["drift"]
    problems = [finding["rule"] for finding in result["validity"]["findings"]]
    problems += [] if result["ended"] == "complete" else ["cut short"]
    problems += [] if drift else ["too few windows"]
    known = {"value": drift["ends"], **drift["ends_interval"]} if drift else {}
    words = f"drift of p50 {drift['ends']:+.2%}" if drift else "no drift"
    return Case(
        ", ".join(filter(None, ("soak drift of p50", f"batch {result['batch']}", graph_words(result)))),
        f"cnnx.{subject['network']}.{subject['precision']}",
        "open" if problems else "good",
        f"{'undecided' if problems else 'measured'}: {words} over {duration(result['seconds'])}",
        tuple(problems),
        figures={name: 100 * value for name, value in known.items()},
        unit="percent" if drift else "",
    )
