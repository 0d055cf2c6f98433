"""200 simulated devices on four nodes: how many cells per second one head serves, and what that costs it.

On each node one asynchronous actor stands for 50 devices: a cell takes a second there, and gives a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from cnnx.machine.environment import installed_version
from cnnx.pipeline.fleet.cluster.ray_cluster import environment_of
from cnnx.pipeline.fleet.work.frames import Frame
from cnnx.pipeline.fleet.work.job import Answer, Job
from cnnx.pipeline.fleet.work.pool import FleetPool, Place
from cnnx.pipeline.progress import silent
from tools.bench.fleet.cluster import cluster

_DEVICES, _NODES, _CELLS, _CELL_S = 200, 4, 2000, 1.0
_ROW = {"model": "net", "precision": "fp16", "status": "done", "figures": [0.5] * 64}


class _Devices:
    """The devices of one node."""

    async def ask(self, header: dict[str, Any]) -> dict[str, Any]:
        if header["do"] == "facts":
            return {
                "facts": {"cpu": "simulated", "threads": 1, "versions": {"cnnx": installed_version("cnnx")}},
                "exports": False,
            }
        if header["do"] == "missing":
            return {"missing": []}
        await asyncio.sleep(_CELL_S)
        return {"value": {"rows": [_ROW]}, "files": {}}


class _Line:
    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def ask(self, frame: Frame) -> AsyncIterator[Frame]:
        yield Frame({**await self._actor.ask.remote(frame.header), "last": True})

    async def close(self) -> None:
        pass


class _Source:
    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors

    async def places(self) -> Sequence[Place]:
        return [self._place(number) for number in range(_DEVICES)]

    async def close(self) -> None:
        pass

    def _place(self, number: int) -> Place:
        async def reach() -> _Line:
            return _Line(self._actors[number % _NODES])

        return Place(f"device{number}", "simulated", reach)


@contextlib.contextmanager
def _connected(address: str, token: Path) -> Iterator[Any]:
    """Ray, connected to the cluster; it reads its environment when it is imported."""
    os.environ.update(environment_of({}, token))
    import ray

    ray.init(address=address, _node_ip_address="127.0.0.2", log_to_driver=False, logging_level="error")
    try:
        yield ray
    finally:
        ray.shutdown()


def run(folder: Path) -> list[str]:
    """Run the cells, and return the lines of a table."""
    folder.mkdir(parents=True)
    names = [f"slots{number}" for number in range(_NODES)]
    with (
        cluster(names, folder) as (address, token, _),
        _connected(address, token) as ray,
    ):
        kind = ray.remote(_Devices)
        actors = [
            kind.options(num_cpus=0, resources={name: 1}, max_concurrency=_DEVICES).remote() for name in names
        ]
        jobs = [Job(f"cell {number}", "survey", {}, "simulated") for number in range(_CELLS)]
        used = _cpu_seconds()
        started = time.monotonic()
        with FleetPool(_Source(actors)) as pool:
            done = sum(isinstance(outcome, Answer) for _, outcome in pool.run(jobs, listener=silent))
        seconds = time.monotonic() - started
        load = (_cpu_seconds() - used) / seconds
        head = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        ray_bytes = sum(_rss(name) for name in ("gcs_server", "raylet"))
    return [
        "| devices | cells | seconds | cells per second | at most | head: cores used | head: memory, MiB | "
        "GCS and raylets: memory, MiB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
        f"| {_DEVICES} | {done} | {seconds:.1f} | {done / seconds:.0f} | {_DEVICES / _CELL_S:.0f} "
        f"| {load:.2f} | {head / 2**20:.0f} | {ray_bytes / 2**20:.0f} |",
    ]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rss(name: str) -> int:
    """Memory of all processes of that name."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() == name:
                found += int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
    return found
