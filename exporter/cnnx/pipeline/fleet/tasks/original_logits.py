"""The task that runs a shard through the original in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.pipeline.fleet.shards.parts import run_parts, torch_original
from cnnx.pipeline.progress import Listener


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> None:
    """Write the original's logits for the shard and for the probe; see `cnnx.pipeline.fleet.shards.parts`.

    Args:
        arguments: `recipe`, `weights`, `trusted` and `threads`.
        files: has the shard, the probe, the checkpoint, and the recipe's own code.
        out: folder for the logits.
        listener: receives progress events.
    """
    original = torch_original(arguments, files)
    session = original.session(threads=arguments["threads"])
    run_parts(session, files, out, original.recipe, listener=listener)
