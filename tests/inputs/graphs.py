"""Small classifiers as ONNX graphs, and one way to run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnnx.graph.passes.observe import MAXIMA, observed_model

SIDE = 12


class Sketch:
    """Draws a graph layer by layer; each method returns the tensor it gives."""

    def __init__(self, *, channels: int = 3, batch: int | str = "batch", seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[TensorProto] = []
        self.input = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, channels, SIDE, SIDE])
        self.batch = batch

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, *shape: int) -> str:
        values = self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return self.constant(name, values.astype(np.float32))

    def conv(self, x: str, name: str, inputs: int, outputs: int, *, kernel: int = 3, group: int = 1) -> str:
        weight = self.weight(f"{name}.weight", outputs, inputs // group, kernel, kernel)
        bias = self.constant(f"{name}.bias", self.random.standard_normal(outputs).astype(np.float32) / 10)
        grouped = {"group": group} if group > 1 else {}
        return self.node("Conv", [x, weight, bias], name, pads=[kernel // 2] * 4, **grouped)

    def classify(self, x: str, features: int, *, classes: int = 10) -> ModelProto:
        """Flatten, Gemm, done."""
        flat = self.node("Flatten", [x], "flatten")
        weight = self.weight("fc.weight", classes, features)
        bias = self.constant("fc.bias", np.linspace(-1, 1, classes, dtype=np.float32))
        self.nodes.append(helper.make_node("Gemm", [flat, weight, bias], ["logits"], name="fc", transB=1))
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, classes])
        return self.model(output)

    def model(self, *outputs: Any, opset: int = 19) -> ModelProto:
        graph = helper.make_graph(self.nodes, "sketch", [self.input], list(outputs), self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def plain(**options: Any) -> ModelProto:
    """Two convolutions, ReLU, max pooling, and a classifier: a VGG in small."""
    s = Sketch(**options)
    x = s.node("Relu", [s.conv("input", "conv1", 3, 16)], "relu1")
    x = s.node("MaxPool", [x], "pool1", kernel_shape=[2, 2], strides=[2, 2])
    x = s.node("Relu", [s.conv(x, "conv2", 16, 32)], "relu2")
    return s.classify(s.node("GlobalAveragePool", [x], "gap"), 32)


def residual(**options: Any) -> ModelProto:
    """An identity block and a block with a projection: a ResNet in small."""
    s = Sketch(**options)
    stem = s.node("Relu", [s.conv("input", "stem", 3, 16)], "stem.relu")
    y = s.node("Relu", [s.conv(stem, "a.conv1", 16, 16)], "a.relu1")
    x = s.node("Add", [s.conv(y, "a.conv2", 16, 16), stem], "a.add")
    x = s.node("Relu", [x], "a.relu2")
    y = s.node("Relu", [s.conv(x, "b.conv1", 16, 32)], "b.relu1")
    shortcut = s.conv(x, "b.down", 16, 32, kernel=1)
    x = s.node("Add", [shortcut, s.conv(y, "b.conv2", 32, 32)], "b.add")
    return s.classify(s.node("GlobalAveragePool", [s.node("Relu", [x], "b.relu2")], "gap"), 32)


def branching(**options: Any) -> ModelProto:
    """Grouped and depthwise convolutions, a concatenation, LRN and Softmax."""
    s = Sketch(**options)
    x = s.node("LRN", [s.node("Relu", [s.conv("input", "stem", 3, 16)], "stem.relu")], "lrn", size=5)
    left, right = s.conv(x, "grouped", 16, 16, group=2), s.conv(x, "depthwise", 16, 16, group=16)
    joined = s.node("Concat", [left, right], "concat", axis=1)
    x = s.node("Softmax", [s.conv(joined, "mix", 32, 16, kernel=1)], "softmax", axis=1)
    return s.classify(s.node("AveragePool", [x], "pool", kernel_shape=[SIDE, SIDE]), 16)


GRAPHS = {"plain": plain, "residual": residual, "branching": branching}


def images(count: int = 4, *, channels: int = 3, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, channels, SIDE, SIDE)).astype(np.float32)


def run(model: ModelProto, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """All outputs by name, with Q/DQ computed as it is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def maxima_of(model: ModelProto, x: NDArray[np.float32]) -> dict[str, float]:
    """Largest absolute value of each activation."""
    observed = observed_model(model)
    found = run(observed.model, x)[MAXIMA]
    return {name: float(found[place].max()) for name, place in observed.channels.items()}
