"""The step that exports the original to a simplified FP32 graph."""

from __future__ import annotations

import json
from pathlib import Path

from cnnx.machine.environment import installed_version
from cnnx.options import Batch
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import MODEL, NOTES, SCALES, Fp32Graph
from cnnx.pipeline.steps.original import Original
from cnnx.store.own_code import own_code


def export_step(steps: Steps, original: Original, *, batch: Batch) -> Fp32Graph:
    """The original's simplified FP32 graph, the scales of its file, and the notes of loading its weights."""
    inputs = {
        "original": original.key(),
        "batch": batch,
        "code": own_code(__name__, *original.modules),
        "onnx": installed_version("onnx"),
    }

    def fill(folder: Path, _: Progress) -> None:
        original.export(folder / MODEL, batch)
        if original.scales is not None:
            (folder / SCALES).write_text(original.scales.to_json(), encoding="utf-8")
        (folder / NOTES).write_text(json.dumps(original.notes) + "\n", encoding="utf-8")

    return Fp32Graph(steps.make("ONNX graph", "export", inputs, fill))
