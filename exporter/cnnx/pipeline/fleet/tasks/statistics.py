"""The task that runs a shard of calibration images through an FP32 graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.graph.load import load_model
from cnnx.pipeline.fleet.shards.parts import PROBE, SHARD, pixels_of, progress_of, recipe_in
from cnnx.pipeline.progress import Listener
from cnnx.pipeline.steps.artefacts import MODEL, STATISTICS
from cnnx.pipeline.steps.observation import observed


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> None:
    """Write statistics of the shard and of the probe; see `cnnx.pipeline.fleet.shards.parts`.

    Args:
        arguments: `recipe`, `threads`, `sampled` and `one_sided`; see `observed`.
        files: has the shard, the probe and `model.onnx`.
        out: folder for the statistics.
        listener: receives progress events.
    """
    model, recipe = load_model(files / MODEL), recipe_in(arguments, files)
    for part in (PROBE, SHARD):
        (out / part).mkdir()
        seen = observed(
            model,
            pixels_of(files, part),
            recipe,
            sampled=arguments["sampled"],
            one_sided=arguments["one_sided"],
            folder=out / part,
            progress=progress_of(listener, "calibration images"),
            threads=arguments["threads"],
        )
        seen.save(out / part / STATISTICS)
