"""Tables of memory (predicted and measured), slowest layers, and failed measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnnx.report.table import Column, Figures, Remark, Table, table_of
from cnnx.report.words import Run, mib, scaled

_LAYERS_SHOWN = 10
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


def layer_table(run: Run, *, whole: bool = False, hint: str = "") -> Table:
    """The ten slowest layers, or all of them (`whole`); `hint` names the option that shows the rest."""
    profile = run.result["layers"]
    ordered = sorted(profile["layers"], key=lambda layer: -layer["median_ns"])
    total = sum(layer["median_ns"] for layer in ordered)
    shown = ordered if whole else ordered[:_LAYERS_SHOWN]
    columns: tuple[Column[Mapping[str, Any]], ...] = (
        Column("layer", lambda layer: layer["name"]),
        Column("op", lambda layer: layer["op"]),
        Column("kind", lambda layer: layer["kind"], fixed=True),
        Figures("ms", lambda layer: scaled(layer["median_ns"], 1e-6, 3)),
        Figures("%", lambda layer: scaled(layer["median_ns"], 100 / total, 1) if total else "-"),
    )
    shares = ", ".join(f"{kind} {share:.1%}" for kind, share in profile["shares"].items())
    more = f"{len(ordered) - len(shown)} more{hint}; " if len(shown) < len(ordered) else ""
    return table_of(
        f"Slowest layers of {run.full}, batch {run.result['latency']['batch']}",
        columns,
        [shown],
        remarks=[Remark(f"{more}medians of {profile['runs']} separate profiling runs: {shares}")],
    )


def unmeasured_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Failed measurements: name, and data from `Unmeasured.as_dict`."""
    columns: tuple[Column[tuple[str, Mapping[str, Any]]], ...] = (
        Column("what", lambda row: row[0], fixed=True),
        Figures("batch", lambda row: str(row[1]["batch"])),
        Column("reason", lambda row: row[1]["reason"]),
        Column("hint", lambda row: row[1]["hint"] or "", known=True),
    )
    return table_of(title, columns, [rows])
