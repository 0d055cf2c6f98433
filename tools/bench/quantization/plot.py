"""Plots the signal-to-noise ratio of every graph."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tools.bench.quantization.records import JUDGED, OURS, Cells, sqnr


def draw(small: dict[str, Cells], file: Path) -> None:
    """Plot the signal-to-noise ratio of every graph, one row per network."""
    plt.rcParams["svg.hashsalt"] = "cnnx"  # the same records give the same file
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(small) + 1.4))
    places = np.arange(len(small))
    for number, way in enumerate(JUDGED):
        values = [sqnr(cells, way) for cells in small.values()]
        dots = [np.nan if value is None else value for value in values]
        mine = way in OURS
        axes.plot(
            dots, places, "D" if mine else "oovsPX^<"[number % 8], label=way, ls="", ms=7 if mine else 5,
            color=f"C{number}", alpha=1 if mine else 0.7,
        )  # fmt: skip
    axes.set_yticks(places, list(small))
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_xlabel("signal-to-noise ratio of the logits, dB")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
