"""The step that builds engines from a bundle's graph."""

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
    """Build engines from a graph: one folder each, with the engine file and the builder's description.

    Raises:
        BuildFailed: the builder failed, or the requested precision was not reached.
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
            write_engine(folder, built)

    return Engines(steps.make(f"{runtime.name} engine", "engine", inputs, fill))


def write_engine(folder: Path, built: runtimes.BuiltEngine) -> Path:
    """Write an engine, its description and what its builder reported into a folder of its own in `folder`.

    Returns:
        the engine's file.
    """
    own_folder = folder / built.identity
    own_folder.mkdir(parents=True)
    (own_folder / built.file_name).write_bytes(built.plan)
    description = {
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
    for name, text in built.evidence.items():
        (own_folder / name).write_text(text, encoding="utf-8")
    (own_folder / BUILT).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return own_folder / built.file_name


def _device_here(runtime: runtimes.Runtime) -> list[str | None]:
    """The device that an engine without a named GPU is built for, as machines may share a cache.

    Includes the board, as GPUs of the same name differ in size between boards. Uses CUDA's name of the GPU,
    as NVML may be missing.
    """
    return [detect().board, str(runtime.device()) if runtime.cannot_run() is None else None]
