"""Table of a measurement beside trtexec's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnnx.measure.spread import UNSTEADY
from cnnx.report.table import Column, Figures, Remark, Table, table_of

_Row = Mapping[str, Any]


def trtexec_table(rows: Sequence[_Row], remarks: Sequence[str]) -> Table:
    """Medians of both, and whether they agree.

    Args:
        rows: "what", "ours", "theirs", "difference" and "agrees" of each figure.
        remarks: sentences on conditions that differ.
    """
    columns: tuple[Column[_Row], ...] = (
        Column("of", lambda row: row["what"], known=True),
        Figures("cnnx", lambda row: f"{row['ours']:.4g}"),
        Figures("trtexec", lambda row: f"{row['theirs']:.4g}"),
        Figures("difference", lambda row: _percent(row["difference"])),
        Column("", lambda row: "agree" if row["agrees"] else "differ", known=True),
    )
    first = Remark(
        f"Medians in ms, and runs per second. They agree if they differ by at most {UNSTEADY:.1%}."
    )
    return table_of("Compared with trtexec", columns, [rows], remarks=[first, *map(Remark, remarks)])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"
