"""Tables of the shipped networks, and of the layers of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from cnnx.report.table import Column, Figures, Remark, Said, table_of
from cnnx.report.words import grouped, several, shape

_Plain = Mapping[str, Any]


def network_blocks(networks: Sequence[_Plain], *, whole: bool) -> list[Said]:
    """`cnnx list`: one group per family. All columns (`whole`), or those that fit into 80 characters."""
    if not networks:
        return [Remark("No network matches these filters; cnnx list alone shows all.")]
    details: tuple[Column[_Plain], ...] = (
        Column("name", lambda n: n["name"], fixed=True),
        Column("family", lambda n: n["family"], drop=2),
        Column("input", lambda n: shape(n["input_shape"]), drop=4),
        Figures("parameters", lambda n: _short(n["parameters"])),
        Figures("MACs", lambda n: _short(n["multiply_adds"])),
        Figures("top-1 %", lambda n: _percent(n, "top1")),
        Figures("top-5 %", lambda n: _percent(n, "top5"), drop=3),
        Column("protocol", lambda n: n["accuracy"]["protocol"] if n["accuracy"] else "", drop=1),
        Column("weights", lambda n: n["weights"], fixed=True),
    )
    brief: tuple[Column[_Plain], ...] = (
        Column("name", lambda n: n["name"], fixed=True),
        Figures("input", lambda n: str(n["input_shape"][-1])),
        Figures("params", lambda n: _short(n["parameters"])),
        Figures("MACs", lambda n: _short(n["multiply_adds"])),
        Figures("top-1", lambda n: _percent(n, "top1")),
        Column("weights", lambda n: n["weights"], fixed=True),
    )
    remarks = (
        Remark("input: width in pixels; top-1: published accuracy in percent."),
        Remark("Protocols differ: --verbose shows them, with family and top-5."),
    )
    families = [list(group) for _, group in groupby(networks, lambda network: network["family"])]
    return [
        table_of(
            several(len(networks), "network"),
            details if whole else brief,
            families,
            lined=True,
            remarks=() if whole else remarks,
        )
    ]


def _short(count: int) -> str:
    """A count with three digits and a unit: "25.6 M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + f" {unit}"
    return str(count) if count else ""


def _percent(network: _Plain, key: str) -> str:
    found = (network["accuracy"] or {}).get(key)
    return f"{found:.2f}" if found else ""


def architecture_blocks(architecture: _Plain) -> list[Said]:
    """`cnnx show`: one row per layer, and the totals."""
    layers, totals = architecture["layers"], architecture["totals"]
    columns: tuple[Column[_Plain], ...] = (
        Column("layer", lambda row: row["name"]),
        Column("op", lambda row: row["op"], drop=1),
        Figures("output", lambda row: shape(row["output_shape"])),
        Figures("memory KiB", lambda row: _kib(row["activation_bytes"]), drop=2),
        Figures("parameters", lambda row: grouped(row["parameters"])),
        Figures("MACs", lambda row: grouped(row["multiply_adds"])),
    )
    total = {"name": "total", "op": "", "output_shape": (), **totals}
    title = f"{architecture['title']}, input {shape(layers[0]['output_shape'])}"
    remark = "memory: output of a layer for one image; runtimes reuse memory and need less in total."
    return [table_of(title, columns, [layers, [total]], lined=True, remarks=[Remark(remark)])]


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f}" if size else ""
