"""Energy of `cnnx bench --power` as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnx.cli.columns import titled

if TYPE_CHECKING:
    from cnnx.measure.power import EnergyPerInference
    from cnnx.pipeline.energy_use import EnergyUse

_COLUMNS = ("mJ", "95 % interval", "mW", "at rest")


def print_energy(out: Console, use: EnergyUse) -> None:
    """Gross and net energy of a picture by the total and by each rail, and what to think of it.

    What a latency's figures do not say is said beside them, and holds here too.
    """
    out.print(_table(use))
    out.print(f"read: {escape(use.sensor)}, because {escape(use.why)}", soft_wrap=True)
    for energy in [use.total] if use.total else use.rails:
        out.print(f"{escape(_name(energy, use))}: {escape(energy.covers)}", soft_wrap=True)
    if use.no_total:
        out.print(f"[yellow]{escape(use.no_total)}[/]", soft_wrap=True)
    basis = use.total or next(iter(use.rails), None)
    if basis:
        out.print(f"intervals: {escape(basis.basis)}", soft_wrap=True)
    for line in _sampling(use):
        out.print(escape(line), soft_wrap=True)
    for doubt in use.measured.doubts:
        out.print(f"[yellow]doubtful:[/] {escape(doubt)}", soft_wrap=True)


def _table(use: EnergyUse) -> Table:
    rate = use.measured.rate
    pace = "back to back" if rate is None else f"at {rate:g} runs a second"
    table = titled(f"Energy of a picture at batch {use.batch}, {pace}", "rail", "", *_COLUMNS, right=_COLUMNS)
    listed = [use.total] if use.total else []
    listed += [rail for rail in use.rails if use.total is None or rail.rails != use.total.rails]
    for energy in listed:
        rest = (energy.idle_before_mw + energy.idle_after_mw) / 2
        digits = _digits(energy.gross_mj)
        gross, net = (
            (_fixed(mean, digits), f"{_fixed(bounds.low, digits)} .. {_fixed(bounds.high, digits)}")
            for mean, bounds in ((energy.gross_mj, energy.gross), (energy.net_mj, energy.net))
        )
        table.add_row(
            escape(_name(energy, use)), "gross", *gross, _fixed(energy.power_mw, 0), _fixed(rest, 0)
        )
        table.add_row("", "net", *net, _fixed(energy.power_mw - rest, 0), "")
    return table


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
    cost = use.cost.interval
    yield (
        f"sampling makes latency {use.cost.ratio - 1:+.1%} "
        f"(95 % interval {cost.low - 1:+.1%} .. {cost.high - 1:+.1%})"
    )
