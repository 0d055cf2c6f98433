"""Predicts the memory of a bundle's graph without loading it into a runtime."""

from __future__ import annotations

from pathlib import Path

from cnnx.graph.footprint import predict_memory
from cnnx.graph.load import load_model
from cnnx.pipeline.bench.measurement import Prediction


def predict_graph(file: Path, batch: int) -> Prediction:
    """Predict the memory of an ONNX graph without fusion; see `cnnx.graph.footprint`."""
    found = predict_memory(load_model(file), batch)
    return Prediction("graph", found.weights_bytes, found.scratch_bytes, found.io_bytes)
