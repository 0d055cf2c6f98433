"""Plots the damage by layer. Needs the extra `report`."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.errors import MissingExtra, UsageError
from cnnx.store.files import atomic_file, check_place

FORMATS = (".svg", ".png")

# Okabe and Ito's palette; the hatch repeats the operator for colour-blind readers.
_KINDS = {"Conv": ("#0072B2", ""), "Gemm": ("#D55E00", "//"), "MatMul": ("#009E73", "..")}
_OTHER_KIND = ("#CC79A7", "xx")
_NAMED = 60  # maximum number of names that fit below the bars


def check_plot(path: Path) -> None:
    """Check, before the work starts, that a plot can be written.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: matplotlib is not installed.
        WriteFailed: the file cannot be written.
    """
    if path.suffix not in FORMATS:
        known = " or ".join(FORMATS)
        raise UsageError(
            f"unknown plot format {path.suffix or path.name!r}",
            where=str(path),
            hint=f"use the suffix {known}",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "report", purpose="a plot of the damage")
    check_place(path)


def write_plot(findings: Mapping[str, Any], path: Path) -> None:
    """Plot the result of a diagnosis record to a file.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: matplotlib is not installed.
        WriteFailed: the file cannot be written.
    """
    check_plot(path)
    content = draw_damage(findings, path.suffix[1:])
    with atomic_file(path) as draft:
        draft.write_bytes(content)


def draw_damage(findings: Mapping[str, Any], suffix: str) -> bytes:
    """Draw a bar for each INT8 layer, in graph order: its divergence alone. Other layers are gaps."""
    import matplotlib as mpl

    mpl.use("agg" if suffix == "png" else "svg")
    import matplotlib.pyplot as plt

    layers, others = findings["layers"], findings["others"]
    count = len(layers) + len(others)
    figure, axes = plt.subplots(figsize=(max(6.0, min(24.0, 1 + 0.25 * count)), 4.5), layout="constrained")
    alone = [layer["likeness"]["divergence"] for layer in layers]
    top = max((each for each in alone if each is not None), default=0.0) or 1.0
    drawn = set()
    for layer, height in zip(layers, alone, strict=True):
        color, hatch = _KINDS.get(layer["op"], _OTHER_KIND)
        label = None if layer["op"] in drawn else layer["op"]
        drawn.add(layer["op"])
        infinite = height is None  # JSON has no infinity
        axes.bar(
            layer["place"],
            1.1 * top if infinite else height,
            color=color,
            hatch=hatch,
            edgecolor="white",
            label=label,
        )
        if infinite:
            axes.annotate("not finite", (layer["place"], 1.1 * top), rotation=90, ha="center", va="top")
    if others:
        places = [layer["place"] for layer in others]
        axes.plot(places, [0] * len(places), "x", color="#777777", clip_on=False, label="not in INT8")
    names = {layer["place"]: layer["layer"] for layer in (*layers, *others)}
    named = sorted(names)[:: 1 + count // _NAMED]
    axes.set_xticks(named, [names[place] for place in named], rotation=90, fontsize=8)
    axes.set_xlim(-0.8, count - 0.2)
    axes.set_ylabel("divergence alone in INT8, nats")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if count:
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if suffix == "svg" else None
    figure.savefig(buffer, format=suffix, metadata=metadata)
    plt.close(figure)
    return buffer.getvalue()
