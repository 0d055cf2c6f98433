"""Energy of `cnnx bench --power` as a table: of one pass by rails, of several a row each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnx.cli.columns import titled
from cnnx.cli.measurements import graph_words, names_of, unmeasured_table

if TYPE_CHECKING:
    from cnnx.measure.power import EnergyPerInference
    from cnnx.pipeline.bench.bench import BenchResult
    from cnnx.pipeline.bench.energy_use import EnergyUse
    from cnnx.record import Subject

_COLUMNS = ("mJ", "95 % interval", "mW", "at rest")
_SEVERAL = ("gross mJ", "95 % interval", "net mJ", "95 % interval", "mW", "at rest")


def print_energies(out: Console, result: BenchResult) -> None:
    """All passes of a benchmark, those that failed with their reason, and INT8 beside FP16."""
    uses, without = result.energy, result.energy_unmeasured
    if len(uses) == 1 and not without:
        print_energy(out, uses[0])
    elif uses:
        _print_several(out, uses, names_of(result.subjects))
    if without:
        full = names_of(result.subjects, network=True)
        out.print(unmeasured_table("Energy not measured", without, full))
    for ratio in result.energy_ratios:
        out.print(escape(str(ratio)), soft_wrap=True)
    if result.energy_ratios:
        out.print("In brackets the ends of both 95 % intervals divided, wider than an interval of the ratio.")


def print_energy(out: Console, use: EnergyUse) -> None:
    """Gross and net energy of a picture by the total and by each rail, and what to think of it.

    What a latency's figures do not say is said beside them, and holds here too.
    """
    out.print(_table(use))
    for line in dict.fromkeys(_read(use)):
        out.print(line, soft_wrap=True)
    for line in _sampling(use):
        out.print(escape(line), soft_wrap=True)
    for doubt in use.measured.doubts:
        out.print(f"[yellow]doubtful:[/] {escape(doubt)}", soft_wrap=True)


def _print_several(out: Console, uses: Sequence[EnergyUse], named: Mapping[Subject, str]) -> None:
    """The totals, or rails where there is no total, as one table; what they share is said once."""
    names = [named[use.subject] for use in uses]
    rails = any(use.total is None for use in uses)
    columns = ("what", "batch", *(("rail",) if rails else ()), *_SEVERAL)
    table = titled(f"Energy of a picture, {_pace(uses)}", *columns, right=("batch", *_SEVERAL))
    for name, use in zip(names, uses, strict=True):
        for place, energy in enumerate([use.total] if use.total else use.rails):
            gross, net = _amounts(energy)
            head = (name, str(use.batch)) if place == 0 else ("", "")
            rail = (escape(_name(energy, use)),) if rails else ()
            table.add_row(*head, *rail, *gross, *net, _fixed(energy.power_mw, 0), _fixed(_rest_mw(energy), 0))
    out.print(table)
    for line in dict.fromkeys(line for use in uses for line in _read(use)):
        out.print(line, soft_wrap=True)
    for name, use in zip(names, uses, strict=True):
        out.print(f"{escape(name)}, batch {use.batch}: {escape('; '.join(_sampling(use)))}", soft_wrap=True)
        for doubt in use.measured.doubts:
            out.print(
                f"[yellow]doubtful:[/] {escape(name)}, batch {use.batch}: {escape(doubt)}", soft_wrap=True
            )


def _read(use: EnergyUse) -> Iterator[str]:
    """What was read, what that covers, and how the intervals came about."""
    yield f"read: {escape(use.sensor)}, because {escape(use.why)}"
    sensor = use.measured.trace.sensor
    yield escape("; ".join((f"{sensor.name}: {sensor.uncertainty}", *sensor.notes)))
    for energy in [use.total] if use.total else use.rails:
        yield f"{escape(_name(energy, use))}: {escape(energy.covers)}"
    if use.no_total:
        yield f"[yellow]{escape(use.no_total)}[/]"
    basis = use.total or next(iter(use.rails), None)
    if basis:
        yield f"intervals: {escape(basis.basis)}"


def _table(use: EnergyUse) -> Table:
    title = f"Energy of a picture at batch {use.batch}, {_pace([use])}"
    table = titled(title, "rail", "", *_COLUMNS, right=_COLUMNS)
    listed = [use.total] if use.total else []
    listed += [rail for rail in use.rails if use.total is None or rail.rails != use.total.rails]
    for energy in listed:
        rest, (gross, net) = _rest_mw(energy), _amounts(energy)
        table.add_row(
            escape(_name(energy, use)), "gross", *gross, _fixed(energy.power_mw, 0), _fixed(rest, 0)
        )
        table.add_row("", "net", *net, _fixed(energy.power_mw - rest, 0), "")
    return table


def _pace(uses: Sequence[EnergyUse]) -> str:
    """How runs followed each other: passes of one benchmark differ in CUDA graphs at most."""
    rate = uses[0].measured.rate
    words = "back to back" if rate is None else f"at {rate:g} runs a second"
    return ", ".join(filter(None, (words, graph_words(use.cuda_graph for use in uses))))


def _amounts(energy: EnergyPerInference) -> tuple[tuple[str, str], tuple[str, str]]:
    """Gross and net, each with its interval, in mJ."""
    digits = _digits(energy.gross_mj)
    gross, net = (
        (_fixed(mean, digits), f"{_fixed(bounds.low, digits)} .. {_fixed(bounds.high, digits)}")
        for mean, bounds in ((energy.gross_mj, energy.gross), (energy.net_mj, energy.net))
    )
    return gross, net


def _rest_mw(energy: EnergyPerInference) -> float:
    return (energy.idle_before_mw + energy.idle_after_mw) / 2


def _name(energy: EnergyPerInference, use: EnergyUse) -> str:
    return "total" if use.total is energy else "+".join(energy.rails)


def _digits(gross_mj: float) -> int:
    """Decimals that leave gross energy four digits: what is more is noise, in net energy too."""
    return max(0, 3 - math.floor(math.log10(abs(gross_mj)))) if gross_mj else 3


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # adding 0.0 turns -0.0 into 0.0


def _sampling(use: EnergyUse) -> Iterator[str]:
    trace, load = use.measured.trace, use.measured.load
    hertz = "not known" if trace.achieved_hz is None else f"{trace.achieved_hz:.1f} Hz"
    gaps = f"{len(trace.gaps_ns)} gaps"
    if use.longest_gap_ns:
        gaps += f", the longest {use.longest_gap_ns / 1e9:.2f} s"
    yield (
        f"{load.inferences:,} pictures in {load.span.seconds:.1f} s; sampled at {hertz} "
        f"(asked {trace.asked_hz:g}), {gaps}"
    )
    if use.measured.rate is not None:
        yield f"{load.dropped:,} of {load.calls + load.dropped:,} runs dropped"
    if use.measured.beside is not None:
        yield _tegrastats(use)
    if use.cost is None:
        yield f"what sampling costs was not measured: {use.no_cost}"
        return
    cost = use.cost.interval
    yield (
        f"sampling makes latency {use.cost.ratio - 1:+.1%} "
        f"(95 % interval {cost.low - 1:+.1%} .. {cost.high - 1:+.1%})"
    )


def _tegrastats(use: EnergyUse) -> str:
    beside, deviations = use.measured.beside, use.measured.deviations
    if beside is None or not deviations:
        return f"tegrastats could not be compared: {(beside and beside.reason) or 'no rail in common'}"
    rails = (
        f"{rail} {abs(share):.1%} {'lower' if share < 0 else 'higher'}" for rail, share in deviations.items()
    )
    return f"tegrastats read {', '.join(rails)}, in {beside.lines} lines under the same load"
