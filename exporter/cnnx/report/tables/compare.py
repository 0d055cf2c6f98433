"""Tables of a comparison: every value of base and new, and the gates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnnx.gates import Gate
from cnnx.report.cases import gate_case
from cnnx.report.table import Cell, Column, Figures, Remark, Said, Suite, Tone, table_of
from cnnx.report.tables.verdicts import GATES, gate_reasons
from cnnx.report.words import scaled

_Plain = Mapping[str, Any]
_TONES: Mapping[str, Tone] = {"better": "good", "worse": "bad"}


def compare_blocks(result: _Plain, gates: Sequence[Sequence[Gate]]) -> Iterator[Said]:
    """A table of changes and one of gates for each network, then what was left out.

    Args:
        result: the comparison as plain data.
        gates: the gates of each pair.
    """
    for pair, judged in zip(result["pairs"], gates, strict=True):
        yield _changes(pair)
        if judged:
            yield _gates(pair, judged)
    for note in result["notes"]:
        yield Remark(note, "note", "open")


def _changes(pair: _Plain) -> Said:
    columns: tuple[Column[_Plain], ...] = (
        Column("value", lambda change: change["what"], fixed=True),
        Figures("base", lambda change: _figure(change, change["base"])),
        Figures("new", lambda change: _figure(change, change["new"])),
        Figures("change", _change),
        Figures("95 % interval", _interval),
        Column("outcome", _outcome),
    )
    return table_of(
        f"{pair['network']}: {pair['new']} against {pair['base']}",
        columns,
        [pair["changes"]],
        remarks=_how(pair["changes"]),
    )


def _how(changes: Iterable[_Plain]) -> Iterator[Remark]:
    """How each value was compared, or why it was not; values with one reason share a remark."""
    found: dict[str, list[str]] = {}
    for change in changes:
        found.setdefault(change["how"], []).append(change["what"])
    for how, names in found.items():
        yield Remark(how, ", ".join(names))


def _figure(change: _Plain, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g} {change['unit']}" if change["unit"] else scaled(value, 1, 4)


def _change(change: _Plain) -> str:
    if change["change"] is None:
        return "-"
    return f"x {change['change']:.4f}" if change["ratio"] else f"{change['change']:+.4g}"


def _interval(change: _Plain) -> str:
    interval = change["interval"]
    if interval is None:
        return "-"
    return " .. ".join(
        f"{interval[end]:.4f}" if change["ratio"] else f"{interval[end]:+.4g}" for end in ("low", "high")
    )


def _outcome(change: _Plain) -> Cell:
    outcome = change["outcome"]
    return Cell(outcome, _TONES.get(outcome))


def _gates(pair: _Plain, gates: Sequence[Gate]) -> Said:
    name = f"{pair['network']}, new against base: {pair['verdict'].upper()}"
    network = pair["network"]
    classname = f"cnnx.{network}.compare"
    cases = tuple(gate_case(gate, classname) for gate in gates)
    suite = Suite(f"{network}: {pair['new']} against {pair['base']}", classname, cases=cases)
    return table_of(name, GATES, [gates], remarks=gate_reasons(gates), suite=suite)
