"""Cases: what passed or failed, as CI counts it. JUnit, annotations and metrics are written from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cnnx.gates import Gate
from cnnx.report.table import TONES, Case, Said, Table

_SECONDS = {"ms": 1e-3}


@dataclass(frozen=True, slots=True)
class CaseSuite:
    """The cases of one table, with the name and date of its suite."""

    name: str
    date: str
    cases: tuple[Case, ...]


def suites_of(blocks: Iterable[Said]) -> Iterator[CaseSuite]:
    """The suites of blocks that have cases."""
    for block in blocks:
        if isinstance(block, Table) and block.suite:
            cases = block.suite.cases or tuple(_cases(block))
            yield CaseSuite(block.suite.name, block.suite.date, cases)


def _cases(table: Table) -> Iterator[Case]:
    """A case for each cell with a tone, for tables that do not state their cases."""
    assert table.suite is not None
    reasons = tuple(str(remark) for remark in table.remarks if remark.tone)
    for row in table.rows:
        for outcome in (cell for cell in row if cell.tone):
            cells = zip(table.columns[1:], row[1:], strict=True)
            values = ", ".join(f"{column.heading} {cell.text}" for column, cell in cells if not cell.tone)
            message = f"{outcome.text}: {values}"
            yield Case(row[0].text, table.suite.classname, outcome.tone or "open", message, reasons)


def gate_case(gate: Gate, classname: str, reasons: Iterable[str] = ()) -> Case:
    """The case of a gate, with its value, interval and limit; the time of a latency is that latency."""
    unit = f" {gate.unit}" if gate.unit else ""
    value = "no value" if gate.value is None else f"value {gate.value:.6g}{unit}"
    interval = f", 95 % interval {gate.interval.low:.6g} .. {gate.interval.high:.6g}" if gate.interval else ""
    limit = f"{'at most' if gate.at_most else 'at least'} {gate.threshold:g}{unit}"
    decides = f"{gate.decides_at:,} {gate.counted} would decide" if gate.decides_at else ""
    figures = {"value": gate.value, "threshold": gate.threshold}
    if gate.interval:
        figures |= {"low": gate.interval.low, "high": gate.interval.high}
    is_time = gate.unit in _SECONDS and gate.value is not None
    return Case(
        gate.name,
        classname,
        TONES[gate.verdict.value],
        f"{gate.verdict.value}: {value}{interval}, limit {limit}",
        tuple(filter(None, (gate.reason, decides, *reasons))),
        gate.value * _SECONDS[gate.unit] if is_time and gate.value is not None else 0.0,
        {name: number for name, number in figures.items() if number is not None and math.isfinite(number)},
        gate.unit,
    )
