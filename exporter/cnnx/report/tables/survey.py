"""Table of a survey: networks, precisions and batch sizes, on one device or those of a fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnx.report.table import Cell, Column, Figures, Remark, Said, Table, Tone, judged, table_of
from cnnx.report.words import grouped, on_cpu, scaled

_Plain = Mapping[str, Any]


def survey_blocks(rows: Sequence[_Plain]) -> list[Said]:
    """One row per cell, then remarks without duplicates, then INT8 advice.

    "-" means unknown or not measured, never 0. A failed cell shows "failed" in its first figure.
    """
    columns: tuple[Column[_Plain], ...] = (
        Column("device", lambda row: row.get("on") or "-", known=True),
        Column("network", lambda row: row["model"]),
        Column("precision", lambda row: row["precision"], fixed=True),
        Figures("batch", lambda row: str(row["batch"])),
        Column("verdict", lambda row: judged(row["verdict"] or "-"), fixed=True),
        Figures("top-1", _top1, known=True),
        Figures("parameters", lambda row: _count(row, "parameters"), known=True, drop=2),
        Figures("MACs", lambda row: _count(row, "multiply_adds"), known=True, drop=1),
        Figures("p50 ms", lambda row: _ms(row, "p50_ns")),
        Figures("p99 ms", lambda row: "-" if _failed(row) else _ms(row, "p99_ns")),
        Figures("images/s", lambda row: scaled(row.get("images_per_second"), 1, 1)),
        Column("valid", _valid, known=True),
        Figures("GPU MiB", lambda row: scaled(row.get("memory", {}).get("gpu_bytes"), 2**-20), known=True),
        Figures("gross mJ", _gross, known=True),
        Figures("net mJ", lambda row: scaled(row.get("net_mj"), 1, 2), known=True),
    )
    advice = dict.fromkeys(row["advice"] for row in rows if row.get("advice"))
    brackets = [Remark(_BRACKETS)] if any(map(_published_alone, rows)) else []
    remarks = [*brackets, *_remarks(rows), *map(Remark, advice)]
    return [table_of("Survey", columns, [rows], remarks=remarks)]


_BRACKETS = "top-1 in brackets: published for this architecture; the weights that ran may differ."


def _published_alone(row: _Plain) -> bool:
    return not row.get("accuracy") and bool(row.get("published_top1"))


def finding_table(findings: Sequence[_Plain], precision: str) -> Table:
    """The findings of Canziani et al., and which of them hold here."""
    columns: tuple[Column[_Plain], ...] = (
        Column("finding", lambda one: one["claim"]),
        Column("holds if", lambda one: one["criterion"]),
        Column("here", lambda one: Cell(one["outcome"], _TONES[one["outcome"]]), fixed=True),
        Column("figures", lambda one: one["why"]),
    )
    return table_of(f"The paper's findings, tested here in {precision.upper()}", columns, [findings])


_TONES: Mapping[str, Tone | None] = {"holds": "good", "does not hold": "open", "not tested": None}


def _top1(row: _Plain) -> str:
    """Measured accuracy; in brackets the published one, whose weights may be others."""
    if measured := row.get("accuracy"):
        return f"{measured['top1']:.2%}"
    published = row.get("published_top1")
    return f"({published:.2f}%)" if published else "-"


def _count(row: _Plain, key: str) -> str:
    return grouped(row[key]) if row.get(key) else "-"


def _failed(row: _Plain) -> bool:
    return bool(row["status"] != "done")


def _ms(row: _Plain, key: str) -> str | Cell:
    return Cell(row["status"], "bad") if _failed(row) else scaled(row[key], 1e-6, 3)


def _valid(row: _Plain) -> str | Cell:
    """Validity, shown for GPUs only."""
    if _failed(row) or on_cpu(row["subject"]):
        return "-"
    return Cell("yes", "good") if row["valid"] else Cell("no", "bad")


def _gross(row: _Plain) -> str | Cell:
    return Cell("failed", "bad") if row.get("energy") == "failed" else scaled(row.get("gross_mj"), 1, 2)


def _remarks(rows: Sequence[_Plain]) -> Iterator[Remark]:
    """Remarks of all cells, in order of first appearance, each with its cells."""
    found: dict[Remark, list[str]] = {}
    for row in rows:
        for remark in _of(row):
            on = f" on {row['on']}" if row.get("on") else ""
            found.setdefault(remark, []).append(
                f"{row['model']} {row['precision']}, batch {row['batch']}{on}"
            )
    for remark, cells in found.items():
        yield Remark(f"{remark.text}: {'; '.join(cells)}", hint=remark.hint)


def _of(row: _Plain) -> Iterator[Remark]:
    """Why a cell failed or has no energy, and doubts about its figures."""
    if _failed(row):
        text = f"failed: {row['reason']}" if row["status"] == "failed" else "not finished"
        yield Remark(text, hint=row["hint"])
        return
    if row.get("assumed_preprocessing"):
        yield Remark("judged under assumed preprocessing", hint="state it in a recipe; cnnx init writes one")
    if row.get("undecided"):
        yield Remark(f"{row['verdict']}: {row['undecided']}")
    yield from map(Remark, row["findings"])
    how, why = row.get("energy"), row.get("no_energy")
    if how in ("unsupported", "failed"):
        yield Remark(f"energy {how}: {why}", hint=row["hint"])
        return
    if why:
        yield Remark(why)
    yield from (Remark(f"doubtful energy: {doubt}") for doubt in row.get("energy_doubts", ()))
