"""The task that exports a network, on a node with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx import runtimes
from cnnx.pipeline.export.export import export
from cnnx.pipeline.progress import Listener

BUNDLE = "bundle"


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> dict[str, Any]:
    """Export a network to the folder `bundle`; no engine is built, as those belong to their devices.

    Args:
        arguments: `model`, `precision`, `batch`, `images`, and `weights`: a word, or the name of a file.
        files: has the checkpoint, if there is one.
        out: folder for the bundle.
        listener: receives progress events.
    """
    weights = str(arguments["weights"])
    result = export(
        arguments["model"],
        precision=arguments["precision"],
        target=runtimes.GRAPHS,
        weights=str(files / weights) if (files / weights).is_file() else weights,
        out=out / BUNDLE,
        batch=tuple(arguments["batch"]),
        calibration_images=arguments["images"],
        validation_images=arguments["images"],
        listener=listener,
    )
    return {"verdict": result.validation.verdict.value}
