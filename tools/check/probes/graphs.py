"""A small network for a real engine, and what ONNX's reference says it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

SHAPE = (1, 3, 64, 64)
LAYERS = ("conv1", "conv2", "fc")
_WIDTHS, _CLASSES = (32, 64), 10


def model() -> onnx.ModelProto:
    """Two convolutions with ReLU, the mean of each channel, a fully connected layer."""
    draws = np.random.default_rng(1)
    first, second = _WIDTHS
    weights = {
        "conv1.weight": (first, 3, 3, 3),
        "conv2.weight": (second, first, 3, 3),
        "fc.weight": (_CLASSES, second),
    }
    stored = [
        numpy_helper.from_array(draws.normal(0, 0.1, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    strided = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "conv1.weight"], ["a"], "conv1", **strided),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "conv2.weight"], ["c"], "conv2", **strided),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (SHAPE[0], _CLASSES))],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write(file: Path) -> Path:
    """The network as a file."""
    onnx.save(model(), file)
    return file


def logits(images: Any) -> Any:
    """What ONNX's reference computes."""
    return ReferenceEvaluator(model()).run(None, {"input": images})[0]
