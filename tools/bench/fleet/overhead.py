"""The wall time of a survey of a fleet with one node, and that of `cnnx survey`, on cells of about 10 s."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cnnx
from tools.bench.fleet.cluster import cluster

NETWORKS = ("lenet5", "resnet20", "small-mobilenet")
PLAN: dict[str, Any] = {"precisions": ("fp32",), "batches": (1, 2, 4, 8), "seconds": 10.0, "images": 64}
_ROUNDS = 2


def run(folder: Path) -> list[str]:
    """Measure both in turns, and return the lines of a table."""
    folder.mkdir(parents=True)
    bundles = [folder / name for name in NETWORKS]
    for bundle in bundles:
        cnnx.export(
            bundle.name, precision="fp32", target="ort", out=bundle, batch=(1, 8), validation_images=64
        )
    lines = ["| round | cnnx survey, s | cnnx fleet survey, s | ratio |", "|---:|---:|---:|---:|"]
    with cluster(["desk"], folder) as (address, token, _):
        for number in range(1, _ROUNDS + 1):
            alone = _seconds(lambda out: cnnx.survey(bundles, out=out, **PLAN), folder / f"alone{number}")
            fleet = _seconds(
                lambda out: cnnx.fleet_survey(bundles, out=out, address=address, token_file=token, **PLAN),
                folder / f"fleet{number}",
            )
            lines.append(f"| {number} | {alone:.1f} | {fleet:.1f} | {fleet / alone:.3f} |")
            print(lines[-1], flush=True)
    return lines


def _seconds(work: Any, out: Path) -> float:
    started = time.perf_counter()
    work(out)
    return time.perf_counter() - started
