"""Table of energy per image: two rows per rail, gross and net of idle power."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnx.report.table import Column, Figures, Remark, Table, table_of
from cnnx.report.words import Run, graph_words, shared, uncertainty


@dataclass(frozen=True, slots=True)
class _Amount:
    """Gross or net energy of one or more rails of a run."""

    run: Run
    rail: str
    energy: Mapping[str, Any]
    side: Literal["gross", "net"]

    @property
    def idle_mw(self) -> float:
        """Mean of the idle power before and after."""
        return float(self.energy["idle_before_mw"] + self.energy["idle_after_mw"]) / 2

    @property
    def power_mw(self) -> float:
        """Power under load; net subtracts idle power."""
        return float(self.energy["power_mw"]) - (self.idle_mw if self.side == "net" else 0)

    def mj(self, value: float) -> str:
        """Format with the decimals that give gross energy four digits; more digits are noise."""
        gross = abs(self.energy["gross_mj"])
        return _fixed(value, max(0, 3 - math.floor(math.log10(gross))) if gross else 3)


def energy_table(runs: Sequence[Run], *, rails: bool) -> Table:
    """The total of each run, or each rail without a total; remarks about sensors and doubts.

    Args:
        runs: runs to show.
        rails: also show rails next to a total.
    """
    which, pace, sensor = (
        shared(runs, _which),
        shared(runs, _pace),
        shared(runs, lambda run: run.result["sensor"]),
    )
    groups = [
        [_Amount(run, *rail, side) for rail in _rails(run.result, rails) for side in ("gross", "net")]
        for run in runs
    ]
    columns: tuple[Column[_Amount], ...] = (
        Column("date", lambda a: a.run.date, fixed=True, once=True, known=True),
        Column("what", lambda a: "" if which else a.run.name, fixed=True, once=True, known=True),
        Figures("batch", lambda a: "" if which else str(a.run.result["batch"]), once=True, known=True),
        Column("runs", lambda a: "" if pace else _pace(a.run), once=True, known=True),
        Column("sensor", lambda a: "" if sensor else a.run.result["sensor"], once=True, known=True),
        Column("rail", lambda a: a.rail if a.side == "gross" else ""),
        Column("energy", lambda a: a.side, fixed=True),
        Figures("mJ", lambda a: a.mj(a.energy[f"{a.side}_mj"])),
        Figures(
            "95 % interval", lambda a: " .. ".join(a.mj(a.energy[a.side][end]) for end in ("low", "high"))
        ),
        Figures("mW", lambda a: _fixed(a.power_mw, 0)),
        Figures("idle mW", lambda a: _fixed(a.idle_mw, 0) if a.side == "gross" else "", drop=1),
    )
    title = ", ".join(filter(None, ("Energy per image", which, pace)))
    return table_of(title, columns, groups, remarks=_remarks(runs))


def _rails(result: Mapping[str, Any], rails: bool) -> list[tuple[str, Mapping[str, Any]]]:
    """Names and energies: the total, if there is one, and rails that differ from it."""
    total = result["total"]
    named = {"total": total} if total else {}
    if rails or not total:
        others = (rail for rail in result["rails"] if not total or rail["rails"] != total["rails"])
        named |= {"+".join(rail["rails"]): rail for rail in others}
    return list(named.items())


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # adding 0.0 turns -0.0 into 0.0


def _which(run: Run) -> str:
    return ", ".join(filter(None, (run.name, f"batch {run.result['batch']}")))


def _pace(run: Run) -> str:
    """How runs were paced."""
    rate = run.result["rate"]
    words = "back to back" if rate is None else f"at {rate:g} runs per second"
    return ", ".join(filter(None, (words, graph_words(run.result))))


def _remarks(runs: Sequence[Run]) -> Iterator[Remark]:
    """Remarks about sensors, shared by runs, then about each run."""
    for run in runs:
        yield from _read(run.result)
    for run in runs:
        name = "" if len(runs) == 1 else f"{_which(run)}: "
        yield Remark(f"{name}{'; '.join(_sampling(run.result))}")
        yield from (Remark(f"{name}{doubt}", "doubt", "open") for doubt in run.result["doubts"])
    yield from (Remark(run.result["remark"]) for run in runs if run.result["remark"])


def _read(result: Mapping[str, Any]) -> Iterator[Remark]:
    """The sensor, what it covers, and the basis of the intervals."""
    yield Remark(f"{result['sensor']}, because {result['why']}", "sensor")
    if stated := result.get("uncertainty"):
        yield Remark("; ".join((uncertainty(stated), *result.get("notes", ()))), result["sensor"])
    named = _rails(result, rails=False)
    yield from (Remark(energy["covers"], name) for name, energy in named)
    if result["no_total"]:
        yield Remark(result["no_total"], tone="open")
    yield from (Remark(energy["basis"], "intervals") for _, energy in named[:1])


def _sampling(result: Mapping[str, Any]) -> Iterator[str]:
    sampling, trace, load = result["sampling"], result["measured"]["trace"], result["measured"]["load"]
    achieved = sampling["achieved_hz"]
    hertz = "an unknown rate" if achieved is None else f"{achieved:.1f} Hz"
    seconds = (load["span"]["end_ns"] - load["span"]["start_ns"]) / 1e9
    longest = f", longest {sampling['longest_gap_ns'] / 1e9:.2f} s" if sampling["longest_gap_ns"] else ""
    yield (
        f"{result['inferences']:,} images in {seconds:.1f} s; sampled at {hertz} "
        f"(requested: {trace['asked_hz']:g} Hz), {sampling['gaps']} gaps{longest}"
    )
    if result["rate"] is not None:
        yield f"{result['dropped']:,} of {load['calls'] + result['dropped']:,} runs dropped"
    if beside := result.get("tegrastats"):
        yield _tegrastats(beside)
    ratio = sampling["latency_ratio"]
    if ratio is None:
        yield f"cost of sampling not measured: {sampling['no_cost']}"
    else:
        low, high = (sampling[f"latency_ratio_{end}"] - 1 for end in ("low", "high"))
        yield f"sampling changes latency by {ratio - 1:+.1%} (95 % interval {low:+.1%} .. {high:+.1%})"


def _tegrastats(beside: Mapping[str, Any]) -> str:
    if not beside["deviations"]:
        return f"no comparison with tegrastats: {beside['reason'] or 'no rail in common'}"
    rails = ", ".join(
        f"{rail} {abs(share):.1%} {'lower' if share < 0 else 'higher'}"
        for rail, share in beside["deviations"].items()
    )
    return f"tegrastats read {rails}, over {beside['lines']} lines under the same load"
