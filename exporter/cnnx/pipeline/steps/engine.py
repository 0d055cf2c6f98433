"""Engines built from a bundle's graph."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from cnnx import runtimes
from cnnx.machine.environment import detect
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import BUILT, Engines
from cnnx.store.digests import digest_of_file
from cnnx.store.own_code import own_code


def engine_step(
    steps: Steps, model: Path, *, runtime: runtimes.Runtime, request: runtimes.BuildRequest
) -> Engines:
    """Engines built from a graph: one folder each, with the plain file and what the build said of it.

    Raises:
        BuildFailed: the builder refused, or the asked precision was not reached.
    """
    asked = dataclasses.asdict(request)
    asked["options"].pop("timing_cache_folder")
    inputs = {
        "graph": digest_of_file(model),
        "runtime": runtime.name,
        "version": runtime.version(),
        "request": asked,
        "device": None if request.compute_capabilities else _device_here(runtime),
        "code": own_code(__name__, runtimes.NAMES[runtime.name]),
    }

    def fill(folder: Path, _: Progress) -> None:
        for built in runtime.build(model, request):
            place = folder / built.identity
            place.mkdir()
            (place / built.file_name).write_bytes(built.plan)
            said = {
                "identity": built.identity,
                "file": built.file_name,
                "runtime_version": built.runtime_version,
                "target": built.target,
                "layer_types": built.layer_types,
                "reach": built.reach,
                "version_compatible": built.version_compatible,
                "dla_core": built.dla_core,
                "on_gpu": built.on_gpu,
                "timing_cache": built.timing_cache,
                "remarks": built.remarks,
            }
            (place / BUILT).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")

    return Engines(steps.make(f"{runtime.name} engine", "engine", inputs, fill))


def _device_here(runtime: runtimes.Runtime) -> list[str | None]:
    """What an engine for no named GPU is for: a cache may be shared by several machines.

    The board, too, as GPUs of one name differ in size between boards; CUDA's name, as NVML may be absent.
    """
    return [detect().board, str(runtime.device()) if runtime.cannot_run() is None else None]
