"""Tables of a bundle: layers with precision, engines, linter warnings, unverified records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnx.report.table import Block, Cell, Column, Figures, Remark, Suite, Table, table_of
from cnnx.report.words import grouped, several

if TYPE_CHECKING:
    from cnnx.bundle.engine import Engine
    from cnnx.bundle.manifest import LintWarning
    from cnnx.graph.inspect import Layer
    from cnnx.record import Unverified


def provenance_table(name: str, rows: Mapping[str, str]) -> Table:
    """Where everything in a bundle comes from."""
    columns: tuple[Column[tuple[str, str]], ...] = (
        Column("what", lambda row: row[0], fixed=True),
        Column("from", lambda row: row[1]),
    )
    return table_of(f"Provenance of {name}", columns, [list(rows.items())])


def precision_table(
    layers: Sequence[Layer], planned: Sequence[Mapping[str, Any]], *, name: str = ""
) -> Table:
    """Every layer of the graph with its precision and the reason from the manifest."""
    from cnnx.graph.inspect import int8_share

    reasons = {layer["node"]: layer["reason"] for layer in planned}
    columns: tuple[Column[Layer], ...] = (
        Column("layer", lambda layer: layer.name),
        Column("op", lambda layer: layer.op),
        Column("data", lambda layer: layer.data_type, fixed=True),
        Figures("MACs", lambda layer: grouped(layer.multiply_adds)),
        Column("reason", lambda layer: reasons.get(layer.name, "part of the input")),
    )
    title = f"Layers{f' of {name}' if name else ''}, {int8_share(layers):.1%} of the MACs in INT8"
    return table_of(title, columns, [layers])


def engine_table(engines: Sequence[Engine]) -> Table:
    """Engines, with remarks of their builds."""
    columns: tuple[Column[Engine], ...] = (
        Column("identity", lambda engine: engine.identity),
        Column("file", lambda engine: engine.file),
        Column("precision", lambda engine: engine.precision),
        Column("layers in INT8", lambda engine: f"{_int8(engine)} of {len(engine.layer_types)} weighted"),
        Column("SHA-256", lambda engine: engine.digest[:12]),
    )
    remarks = [Remark(text, engine.identity, "open") for engine in engines for text in engine.remarks]
    return table_of("Engines", columns, [engines], remarks=remarks)


def _int8(engine: Engine) -> int:
    return list(engine.layer_types.values()).count("int8")


def lint_blocks(warnings: Sequence[LintWarning], *, whole: bool) -> list[Block]:
    """Linter warnings, or their number."""
    if not warnings:
        return []
    if not whole:
        return [Remark(f"{several(len(warnings), 'linter warning')} (--verbose shows them)")]
    columns: tuple[Column[LintWarning], ...] = (
        Column("rule", lambda warning: warning["rule"]),
        Column("node", lambda warning: warning["node"]),
        Column("warning", lambda warning: warning["message"]),
        Column("hint", lambda warning: warning["hint"]),
    )
    return [table_of("Linter warnings", columns, [warnings])]


def unverified_table(unverified: Sequence[Unverified]) -> Table:
    """Records whose figures are not shown, and why."""
    columns: tuple[Column[Unverified], ...] = (
        Column("file", lambda one: one.file),
        Column("date", lambda one: one.record.date[:19] if one.record else "-", fixed=True, known=True),
        Column("kind", lambda one: one.record.kind if one.record else "damaged", fixed=True),
        Column("reason", lambda one: Cell(one.reason, "open")),
    )
    suite = Suite("unverified records", "cnnx.unverified")
    return table_of("Unverified records", columns, [unverified], suite=suite)


def unverified_blocks(unverified: Sequence[Unverified], *, whole: bool) -> list[Block]:
    """Damaged records, and the other unverified records or their number."""
    shown = [one for one in unverified if whole or one.record is None]
    blocks: list[Block] = [unverified_table(shown)] if shown else []
    if others := len(unverified) - len(shown):
        text = f"{several(others, 'unverified record')} left out (--verbose shows them)"
        blocks.append(Remark(text))
    return blocks
