"""The task that runs a shard through a bundle's graph or engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.pipeline.fleet.shards.parts import BUNDLE, run_parts
from cnnx.pipeline.progress import Listener
from cnnx.pipeline.target import open_subject


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> None:
    """Write the subject's logits for the shard and for the probe; see `cnnx.pipeline.fleet.shards.parts`.

    Args:
        arguments: `target`, `engine` (None: the graph) and `threads`.
        files: has the shard, the probe and the bundle.
        out: folder for the logits.
        listener: receives progress events.
    """
    bundle = Bundle.open(files / BUNDLE)
    subject = open_subject(bundle, arguments["target"], engine=arguments["engine"])
    options = dataclasses.replace(subject.options, threads=arguments["threads"])
    session = dataclasses.replace(subject, options=options).open()
    recipe = recipe_of(bundle.manifest)
    run_parts(session, files, out, recipe, form=recipe.input_format, listener=listener)
