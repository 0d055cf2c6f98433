"""Tables of memory (predicted and measured), and of failed measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnnx.report.table import Column, Figures, Remark, Table, table_of
from cnnx.report.words import Run, mib

_PREDICTED = {"weights": "weights_bytes", "activations": "scratch_bytes", "I/O": "io_bytes"}


def memory_table(runs: Sequence[Run]) -> Table:
    """Predicted and measured memory, one row per run."""

    def predicted(heading: str, drop: int = 0) -> Column[Run]:
        return Figures(heading, lambda run: mib(_predicted(run)[heading], 2), drop=drop)

    def measured(heading: str, key: str, *, known: bool = False) -> Column[Run]:
        return Figures(heading, lambda run: mib(run.result["memory"].get(key)), known=known)

    columns: tuple[Column[Run], ...] = (
        Column("what", lambda run: run.name, fixed=True),
        Figures("batch", lambda run: str(run.result["latency"]["batch"])),
        predicted("weights", drop=3),
        predicted("activations", drop=2),
        predicted("I/O", drop=1),
        predicted("predicted"),
        measured("host peak", "added_bytes"),
        measured("libraries", "libraries_bytes"),
        measured("CUDA context", "context_bytes", known=True),
        measured("GPU process", "gpu_bytes", known=True),
        measured("CPU and GPU", "shared_bytes", known=True),
    )
    remark = Remark("Measured in a separate process with one run each; the prediction excludes libraries.")
    return table_of("Memory, MiB", columns, [runs], remarks=[remark])


def _predicted(run: Run) -> Mapping[str, Any]:
    """The parts, and their sum if all are known."""
    parts: dict[str, Any] = {
        name: (run.result.get("predicted") or {}).get(key) for name, key in _PREDICTED.items()
    }
    return {**parts, "predicted": None if None in parts.values() else sum(parts.values())}


def prediction(predicted: Mapping[str, Any]) -> str:
    """Predicted memory in words."""
    parts = ", ".join(f"{name} {mib(predicted[key], 2)}" for name, key in _PREDICTED.items())
    return f"{parts} MiB, plus libraries and workspace"


def unmeasured_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Failed measurements: name, and data from `Unmeasured.as_dict`."""
    columns: tuple[Column[tuple[str, Mapping[str, Any]]], ...] = (
        Column("what", lambda row: row[0], fixed=True),
        Figures("batch", lambda row: str(row[1]["batch"])),
        Column("reason", lambda row: row[1]["reason"]),
        Column("hint", lambda row: row[1]["hint"] or "", known=True),
    )
    return table_of(title, columns, [rows])
