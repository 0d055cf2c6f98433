"""The files that steps leave in the cache: steps read one another's files, not their code."""

from __future__ import annotations

MODEL = "model.onnx"
NOTES = "notes.json"
LOGITS = "logits.npy"
STATISTICS = "statistics.npz"
RANGES = "calibration.json"
LAYERS = "layers.json"
BUILT = "built.json"
