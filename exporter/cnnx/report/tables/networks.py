"""What there is to export, and one network layer by layer: both as `--json` prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from cnnx.report.table import Column, Figures, Remark, Said, table_of
from cnnx.report.words import grouped, several, shape

_Plain = Mapping[str, Any]


def network_blocks(networks: Sequence[_Plain]) -> list[Said]:
    """`cnnx list`: a group a family."""
    if not networks:
        return [Remark("No network fits these filters; cnnx list alone shows all.")]
    columns: tuple[Column[_Plain], ...] = (
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
    families = [list(group) for _, group in groupby(networks, lambda network: network["family"])]
    return [table_of(several(len(networks), "network"), columns, families, lined=True)]


def _short(count: int) -> str:
    """Three or four digits and a unit: "25.6 M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + f" {unit}"
    return str(count) if count else ""


def _percent(network: _Plain, key: str) -> str:
    found = (network["accuracy"] or {}).get(key)
    return f"{found:.2f}" if found else ""


def architecture_blocks(architecture: _Plain) -> list[Said]:
    """`cnnx show`: a row a layer, and the totals."""
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
    remark = "Memory: what a layer newly writes for one image. A runtime uses memory again and needs less."
    return [table_of(title, columns, [layers, [total]], lined=True, remarks=[Remark(remark)])]


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f}" if size else ""
