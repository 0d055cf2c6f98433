"""Tables of a record of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cnnx.report.table import Cell, Column, Figures, Remark, Said, Table, table_of
from cnnx.report.words import first_of, scaled

_SHOWN = 40

_Plain = Mapping[str, Any]
_LEGEND = (
    "dB: 10 log10 of signal / noise, compared with the FP32 graph; expected: of the graph in ONNX Runtime; "
    "own: of the noise that the graph adds there"
)


def tensor_blocks(findings: _Plain, *, whole: bool) -> Iterator[Said]:
    """Tensors in graph order, conclusions, notes."""
    yield _rows(findings, whole=whole)
    yield from map(Remark, findings.get("reading", ()))
    yield from (Remark(note, "note", "open") for note in findings.get("notes", ()))


def _rows(findings: _Plain, *, whole: bool) -> Table:
    rows, more = first_of(findings["rows"], _SHOWN, whole=whole)
    is_graph, has_integers = findings["how"] == "graph", any(row["scale_of"] for row in findings["rows"])
    differs = any(row["db"] != row["expected_db"] for row in findings["rows"])
    expected: Column[_Plain] = Figures("expected, dB", lambda row: scaled(row["expected_db"], 1, 1))
    integers: Column[_Plain] = Column("INT8, scale of", lambda row: row["scale_of"], drop=1)
    columns: tuple[Column[_Plain], ...] = (
        Column("tensor", lambda row: row["tensor"]),
        Column("computed by", lambda row: ", ".join(row["nodes"][-3:]) or "-", drop=2),
        *([integers] if has_integers else ()),
        Figures("graph, dB" if is_graph else "engine, dB", _level),
        *([expected] if differs else ()),
        Figures("own, dB", lambda row: scaled(row["own_db"], 1, 1), drop=3),
    )
    images = f"{findings['images']} images of {findings['image_set']}"
    how = {"unfused": "unfused tensors", "outputs": "tensors as extra outputs", "graph": "tensors"}
    title = f"Signal to noise along the network: {len(findings['rows'])} {how[findings['how']]}, on {images}"
    return table_of(title, columns, [rows], remarks=[*more, Remark(_LEGEND)])


def _level(row: _Plain) -> Cell:
    text = "not finite" if not row["finite"] else "exact" if row["db"] is None else f"{row['db']:.1f}"
    return Cell(text, "bad" if row["falls"] else None)
