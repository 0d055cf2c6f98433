"""Five networks in three precisions on four nodes, one of which is killed in the middle, and on one node."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cnnx
from cnnx.bundle import Bundle
from cnnx.pipeline.progress import NodeEvent, ProgressEvent
from tools.bench.fleet.cluster import cluster

NETWORKS = ("lenet5", "resnet20", "small-mobilenet", "small-googlenet-bn", "small-vgg-bn")
PLAN: dict[str, Any] = {
    "precisions": ("fp32", "fp16", "int8"),
    "batches": (1,),
    "seconds": 0.5,
    "images": 256,
    "on": ("desk",),
}


def run(folder: Path) -> list[str]:
    """Run both, compare them, and return the lines of a table."""
    four, rows, events = _survey(folder / "four", 4, kill=True)
    one, _, _ = _survey(folder / "one", 1, kill=False)
    alike = {name: four[name] == one[name] for name in one}
    done = sum(row["status"] == "done" for row in rows)
    lost = sum(event.state == "lost" for event in events)
    return [
        "| cells | finished | nodes killed | losses reported | bundles | equal to one node's, bit for bit |",
        "|---:|---:|---:|---:|---:|---:|",
        f"| {len(rows)} | {done} | 1 | {lost} | {len(alike)} | {sum(alike.values())} |",
    ]


def _survey(folder: Path, count: int, *, kill: bool) -> tuple[Mapping[str, Any], Any, list[NodeEvent]]:
    """Run the survey, and return what each bundle holds, the rows, and the events of nodes."""
    events: list[NodeEvent] = []
    folder.mkdir(parents=True)
    with cluster(["desk"] * count, folder) as (address, token, nodes):

        def listen(event: ProgressEvent) -> None:
            if not isinstance(event, NodeEvent):
                return
            events.append(event)
            if kill and event.jobs_done == event.jobs // 2 and nodes[-1].process.poll() is None:
                nodes[-1].kill()

        started = time.monotonic()
        result = cnnx.fleet_survey(
            list(NETWORKS), out=folder / "out", address=address, token_file=token, listener=listen, **PLAN
        )
        print(f"{count} nodes: {time.monotonic() - started:.0f} s", flush=True)
    bundles = {path.name: _content(path) for path in (folder / "out/bundles").iterdir() if path.is_dir()}
    return bundles, result.rows, events


def _content(path: Path) -> Any:
    """Digests of a bundle's graph, ranges and self-test, and the gates of its validation."""
    bundle = Bundle.open(path)
    files = {name: digest for name, digest in bundle.manifest.files.items() if name != "manifest.json"}
    gates = [record.result["gates"] for record in bundle.records() if record.kind == "validation"]
    return files, gates
