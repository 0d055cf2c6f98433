"""A survey's rows as files: survey.md for people, survey.json for what comes after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.store.files import atomic_file

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
)


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be known of some cells: said once, however many have it.

    Attributes:
        text: why a cell failed, has no energy, or is doubtful.
        mend: what helps; empty where nothing is known to.
        cells: those it is of, each "network precision, batch N".
    """

    text: str
    mend: str
    cells: tuple[str, ...]


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
    """One table, a row a cell; then remarks, reasons of what failed among them; then what INT8 gained."""
    lines = ["# Survey", "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells_of(row)) + " |" for row in rows]
    for remark in remarks_of(rows):
        mend = f" Mend: {remark.mend}." if remark.mend else ""
        lines += ["", f"{remark.text}: {'; '.join(remark.cells)}.{mend}"]
    advice = dict.fromkeys(row["advice"] for row in rows if row.get("advice"))
    return "\n".join([*lines, *(line for text in advice for line in ("", text))]) + "\n"


def cells_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row's cells, as `COLUMNS` names them; "-" is not known or not measured, never 0.

    What failed says so where its first figure would stand.
    """
    head = (row["model"], row["precision"], str(row["batch"]), row["verdict"] or "-")
    if row["status"] != "done":
        return (*head, "failed", *["-"] * 6)
    gpu = row["memory"]["gpu_bytes"]
    return (
        *head,
        _scaled(row["p50_ns"], 1e-6, 3),
        _scaled(row["p99_ns"], 1e-6, 3),
        _scaled(row["images_per_second"], 1, 1),
        "yes" if row["valid"] else "no",
        _scaled(gpu, 2**-20, 0),
        "failed" if row.get("energy") == "failed" else _scaled(row.get("gross_mj"), 1, 2),
        _scaled(row.get("net_mj"), 1, 2),
    )


def remarks_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Remark, ...]:
    """Of all cells, in the order in which they first come."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for said in _remarks(row):
            found.setdefault(said, []).append(f"{row['model']} {row['precision']}, batch {row['batch']}")
    return tuple(Remark(text, mend, tuple(cells)) for (text, mend), cells in found.items())


def _remarks(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each with its mend: a row has one, of what failed."""
    if row["status"] != "done":
        return [(f"failed: {row['reason']}", row["mend"])]
    energy = _energy_remarks(row)
    mend = row["mend"] if row.get("energy") in ("unsupported", "failed") else ""
    return [*((finding, "") for finding in row["findings"]), *((text, mend) for text in energy)]


def _energy_remarks(row: Mapping[str, Any]) -> list[str]:
    """Why there is no energy of a picture, or what speaks against it."""
    how = row.get("energy")
    if how in ("unsupported", "failed"):
        return [f"energy {how}: {row['no_energy']}"]
    doubts = [f"doubtful energy: {doubt}" for doubt in row.get("energy_doubts", ())]
    return [*([row["no_energy"]] if row.get("no_energy") else []), *doubts]


def _scaled(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
