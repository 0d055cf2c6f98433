"""A survey's rows as files: survey.md for people, survey.json for what comes after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnx.store import atomic_file

COLUMNS = (
    "network",
    "precision",
    "batch",
    "verdict",
    "p50 ms",
    "p99 ms",
    "images/s",
    "valid",
    "GPU MiB",
    "gross mJ",
    "net mJ",
    "remark",
)


def write_survey(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write both files.

    Raises:
        WriteFailed: they cannot be written.
    """
    with atomic_file(folder / "survey.json") as draft:
        draft.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
    with atomic_file(folder / "survey.md") as draft:
        draft.write_text(markdown_from_rows(rows), encoding="utf-8")


def markdown_from_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """One table, a row a cell, failed ones with their reason; then what INT8 gained."""
    lines = ["# Survey", "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells_of(row)) + " |" for row in rows]
    advice = dict.fromkeys(row["advice"] for row in rows if row.get("advice"))
    return "\n".join([*lines, *(line for text in advice for line in ("", text))]) + "\n"


def cells_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row's cells, as `COLUMNS` names them; "-" is not known or not measured, never 0."""
    head = (row["model"], row["precision"], str(row["batch"]), row["verdict"] or "-")
    if row["status"] != "done":
        return (*head, *["-"] * 7, f"failed: {row['reason']}")
    gpu = row["memory"]["gpu_bytes"]
    return (
        *head,
        _scaled(row["p50_ns"], 1e-6, 3),
        _scaled(row["p99_ns"], 1e-6, 3),
        _scaled(row["images_per_second"], 1, 1),
        "yes" if row["valid"] else "no",
        _scaled(gpu, 2**-20, 0),
        _scaled(row.get("gross_mj"), 1, 2),
        _scaled(row.get("net_mj"), 1, 2),
        "; ".join([*row["findings"], *_energy_remarks(row)]),
    )


def _energy_remarks(row: Mapping[str, Any]) -> list[str]:
    """Why there is no energy of a picture, or what speaks against it."""
    how = row.get("energy")
    if how in ("unsupported", "failed"):
        return [f"energy {how}: {row['no_energy']}"]
    doubts = [f"doubtful energy: {doubt}" for doubt in row.get("energy_doubts", ())]
    return [*([row["no_energy"]] if row.get("no_energy") else []), *doubts]


def _scaled(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
