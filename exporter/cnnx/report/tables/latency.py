"""Table of latency: one row per series of times, with validity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnx.report.table import Case, Column, Figures, Remark, Suite, Table, table_of
from cnnx.report.words import Run, ends, graph_words, on_cpu, scaled, several, shared

_MS = 1e-6
_ALL = "end to end"


@dataclass(frozen=True, slots=True)
class _Series:
    """One series of times of a run, and its figures."""

    run: Run
    of: str
    figures: Mapping[str, Any]

    @property
    def asked(self) -> float:
        """The requested percentile."""
        return float(self.figures.get("percentile", 99))

    def at(self, percentile: float) -> str:
        """A latency percentile in ms."""
        usual = self.figures.get(f"p{percentile:g}_ns")
        asked = self.figures.get("percentile_ns") if percentile == self.asked else None
        return scaled(asked if usual is None else usual, _MS, 3)

    @property
    def throughput(self) -> str:
        """Images per second, shown with the main series."""
        result = self.run.result
        whole = self.of == next(iter(_series(result)))
        return scaled(result["figures"]["images_per_second"], 1, 1) if whole else ""


def latency_table(runs: Sequence[Run]) -> Table:
    """Latency of each run, main series first; remarks about validity."""
    groups = [[_Series(run, *each) for each in _series(run.result).items()] for run in runs]
    every = [series for group in groups for series in group]
    device, graphs = shared(runs, _device), shared(runs, _graph)
    parts = any(series.of != _ALL for series in every)
    percentiles = sorted({90.0, *(series.asked for series in every)} - {50.0})
    columns: tuple[Column[_Series], ...] = (
        Column("date", lambda s: s.run.date, fixed=True, once=True, known=True),
        Column("what", lambda s: s.run.name, fixed=True, once=True),
        Figures("batch", lambda s: str(s.run.result["latency"]["batch"]), once=True),
        Column(
            "CUDA graph",
            lambda s: "" if graphs else _graph(s.run).removeprefix("CUDA graph "),
            fixed=True,
            once=True,
            known=True,
        ),
        Column("of", lambda s: s.of if parts else "", known=True),
        Figures("p50 ms", lambda s: s.at(50)),
        Figures("95 % interval", lambda s: ends(s.figures.get("p50_interval"), _MS, 3)),
        *(_percentile(each) for each in percentiles),
        Figures("mean ms", lambda s: scaled(s.figures["mean_ns"], _MS, 3), drop=2),
        Figures("CoV %", lambda s: scaled(s.figures["coefficient_of_variation"], 100, 1), drop=3),
        Figures("images/s", lambda s: s.throughput),
        Figures("samples", lambda s: _samples(s.run.result["latency"]), once=True, drop=1),
    )
    title = " on ".join(filter(None, ("Latency", device)))
    return table_of(title, columns, groups, remarks=_remarks(runs, graphs), suite=_suite(runs))


def _suite(runs: Sequence[Run]) -> Suite:
    """A case for each run: skipped if the measurement is invalid; its time is the median."""
    return Suite("latency", "cnnx.latency", cases=tuple(map(_case, runs)))


def _case(run: Run) -> Case:
    figures, subject, batch = run.result["figures"], run.result["subject"], run.result["latency"]["batch"]
    findings = (run.result.get("validity") or {"findings": ()})["findings"]
    interval, median = figures.get("p50_interval") or {}, figures["p50_ns"]
    known = {"value": median, "low": interval.get("low"), "high": interval.get("high")}
    words = "too few samples" if median is None else f"p50 {median * _MS:.6g} ms"
    ends_of = f", 95 % interval {ends(interval, _MS, 6)}" if interval else ""
    graph = graph_words(run.result)
    return Case(
        ", ".join(filter(None, ("latency p50", f"batch {batch}", graph))),
        f"cnnx.{subject['network']}.{subject['precision']}",
        "open" if findings or median is None else "good",
        f"{'invalid' if findings else 'measured'}: {words}{ends_of}",
        tuple(f"{finding['rule']}: {finding['reason']}" for finding in findings),
        (median or 0) * 1e-9,
        {name: value * _MS for name, value in known.items() if value is not None},
        "ms",
    )


def _percentile(asked: float) -> Column[_Series]:
    return Figures(f"p{asked:g} ms", lambda s: s.at(asked))


def _series(result: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """All series of a result; older records have only the main one."""
    return result.get("series") or {result["figures"]["of"]: result["figures"]}


def _device(run: Run) -> str:
    return f"{run.result['subject']['runtime']}, {run.result['subject']['device']}"


def _samples(latency: Mapping[str, Any]) -> str:
    parts = latency.get("parts")
    return str(len(parts["compute_ns"] if parts else latency["samples_ns"]))


def _graph(run: Run) -> str:
    return graph_words(run.result)


def _remarks(runs: Sequence[Run], graphs: str) -> Iterator[Remark]:
    conditions = ", ".join(filter(None, (shared(runs, _conditions), graphs)))
    yield Remark('"-": too few samples.' + (f" {conditions}." if conditions else ""))
    for run in runs:
        yield from _engine(run)
    for run in runs:
        yield from _validity(run)
    yield from (Remark(run.result["remark"]) for run in runs if run.result["remark"])


def latency_warnings(runs: Sequence[Run]) -> list[Remark]:
    """Reasons that make a latency invalid, limits of the figures, and the number of other remarks."""
    validity = [remark for run in runs for remark in _validity(run)]
    others = sum(remark.tone == "open" for remark in validity)
    return [
        *(remark for remark in validity if remark.tone == "bad"),
        *dict.fromkeys(Remark(run.result["remark"]) for run in runs if run.result["remark"]),
        *([Remark(f"{several(others, 'remark')} about latency (--verbose shows them)")] if others else []),
    ]


def _conditions(run: Run) -> str:
    if not (found := run.result.get("conditions")):
        return ""
    turns = f", {found['side_by_side']} taking turns" if found["side_by_side"] > 1 else ""
    return f"At least {found['min_seconds']:g} s each{turns}"


def _engine(run: Run) -> Iterator[Remark]:
    """The engine's identity, the batch that it is tuned for, and the batch that its memory is for."""
    subject, conditions = run.result["subject"], run.result.get("conditions") or {}
    if not subject.get("engine"):
        return
    text = f"{subject['network']} {subject['artefact']} {subject['precision']} is {subject['engine']}"
    if conditions.get("largest") is not None:
        text += f", tuned for batch {conditions['tuned_for']}; "
        text += f"memory is for its largest batch, {conditions['largest']}"
    yield Remark(f"{text}.")


def _validity(run: Run) -> Iterator[Remark]:
    """Findings about validity. A valid run on a CPU gets no remark."""
    validity, subject = run.result.get("validity"), run.result["subject"]
    if not validity:
        return
    name = f"{run.full}, batch {run.result['latency']['batch']}"
    if validity["valid"] and not on_cpu(subject):
        yield Remark(name, "valid", "good")
    for finding in validity["findings"]:
        yield Remark(f"{name}: {finding['reason']}; {finding['hint']}", "invalid", "bad")
    for judged in validity.get("percentiles") or ():
        if judged["reason"] and validity["valid"]:
            yield Remark(f"{name}: p{judged['percentile']:g}: {judged['reason']}", "invalid", "open")
    for finding in validity["remarks"]:
        yield Remark(f"{name}: {finding['reason']}; {finding['hint']}", "remark", "open")
