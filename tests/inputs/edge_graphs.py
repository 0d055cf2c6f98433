"""Classifiers of gray images, each with something in it that quantization may stumble over."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper

from tests.inputs.graphs import SIDE, Sketch


def network(kind: str, value: float = 1.0) -> ModelProto:
    """Two convolutions of 16 channels and a classifier; what is odd is what the second one reads."""
    s = Sketch(channels=1, batch=1)
    first = "input"
    if kind == "from-black":  # a black pixel arrives as -1
        first = s.node("Add", [first, s.constant("one", np.float32(1))], "shifted")
    conv = s.conv(first, "conv1", 1, 16)
    made = {t.name: numpy_helper.to_array(t).copy() for t in s.constants}
    weight, bias = made["conv1.weight"], made["conv1.bias"]
    if kind == "dead-channels":
        weight[::3], bias[::3] = 0, -1
    elif kind == "dead-tensor":
        weight[:], bias[:] = 0, -1
    elif kind == "constant":
        weight[:], bias[:] = 0, value
    elif kind in ("scaled", "infinite"):
        weight, bias = weight * np.float32(value), bias * np.float32(value)
    elif kind == "outlier":  # in one channel, for the brightest pixels alone
        weight[0], bias[0] = 0, -9000
        weight[0, 0, 1, 1] = 10000
    set_constant(s, "conv1.weight", weight)
    set_constant(s, "conv1.bias", bias)
    relu = s.node("Sigmoid" if kind == "infinite" else "Relu", [conv], "relu1")
    x = s.conv(relu, "conv2", 16, 16)
    if kind == "scaled":  # undone behind the second convolution
        bias = numpy_helper.to_array(s.constants[-1])
        set_constant(s, "conv2.bias", bias * np.float32(value))
        x = s.node("Mul", [x, s.constant("undo", np.float32(1 / value))], "mul")
    elif kind == "nan":
        x = s.node("Sqrt", [x], "root")
    x = s.node("Relu", [x], "relu2") if kind != "nan" else x
    return s.classify(s.node("AveragePool", [x], "pool", kernel_shape=[SIDE, SIDE]), 16)


def set_constant(s: Sketch, name: str, values: np.ndarray) -> None:
    """Replace a constant of a sketch."""
    s.constants = [t for t in s.constants if t.name != name]
    s.constant(name, values.astype(np.float32))
