"""The task that exports a PyTorch definition to its FP32 graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.pipeline.fleet.shards.parts import torch_original
from cnnx.pipeline.progress import Listener, ProgressEvent
from cnnx.pipeline.steps.artefacts import MODEL, NOTES


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> None:
    """Write the graph and the notes of loading its weights.

    Args:
        arguments: `recipe`, `weights`, `trusted` and `batch`.
        files: has the checkpoint, and the recipe's own code.
        out: folder for `model.onnx` and `notes.json`.
        listener: receives progress events.
    """
    listener(ProgressEvent("ONNX graph"))
    original = torch_original(arguments, files)
    low, high = arguments["batch"]
    original.export(out / MODEL, (low, high))
    (out / NOTES).write_text(json.dumps(original.notes) + "\n", encoding="utf-8")
