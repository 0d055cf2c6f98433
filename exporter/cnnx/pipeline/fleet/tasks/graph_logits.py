"""The task that runs a shard through an FP32 graph: the original's, or that of a user's ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.pipeline.fleet.shards.parts import recipe_in, run_parts
from cnnx.pipeline.progress import Listener
from cnnx.pipeline.steps.artefacts import MODEL
from cnnx.pipeline.steps.inference import open_here


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> None:
    """Write the graph's logits for the shard and for the probe; see `cnnx.pipeline.fleet.shards.parts`.

    Args:
        arguments: `recipe` and `threads`.
        files: has the shard, the probe and `model.onnx`.
        out: folder for the logits.
        listener: receives progress events.
    """
    session = open_here(files / MODEL, threads=arguments["threads"])
    run_parts(session, files, out, recipe_in(arguments, files), listener=listener)
