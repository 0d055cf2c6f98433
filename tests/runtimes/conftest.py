"""Writes small networks as ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

MakeNet = Callable[..., Path]


class Net:
    """conv1, conv2 and fc, with a residual add and pooling, and optionally Q/DQ and FP16.

    Args:
        precision: "fp32", "fp16", "int8" (all other layers in FP16) or "int8-fp32" (in FP32).
        batch: batch of the input; a name if it is dynamic.
    """

    channels = 16

    def __init__(self, precision: str, batch: int | str) -> None:
        self._rng = np.random.default_rng(0)
        self._int8 = precision.startswith("int8")
        half = precision in ("fp16", "int8")
        self._dtype = np.float16 if half else np.float32
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        entry = self._node("Cast", ["input"], "cast_in", to=TensorProto.FLOAT16) if half else "input"
        first = self._node("Relu", [self._conv(entry, "conv1", 3)], "relu1")
        first_q = self._quantized(first)
        second = self._conv(first_q, "conv2", self.channels)
        added = self._node("Relu", [self._node("Add", [second, first_q], "add")], "relu2")
        pooled = self._node("MaxPool", [added], "pool", kernel_shape=[2, 2], strides=[2, 2])
        flat = self._node("Flatten", [self._node("GlobalAveragePool", [pooled], "gap")], "flat")
        inputs = [self._quantized(flat), self._weight("fc", (10, self.channels)), self._bias("fc", 10)]
        self._node("Gemm", inputs, "fc", transB=1)
        if half:
            self._node("Cast", ["fc_y"], "cast_out", to=TensorProto.FLOAT)
        self.nodes[-1].output[0] = "logits"
        self.batch = batch

    def model(self, more_outputs: tuple[Any, ...] = ()) -> Any:
        shape = [self.batch, 3, 8, 8]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, 10]), *more_outputs],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)

    def _node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_y"], name=name, **attributes))
        return f"{name}_y"

    def _constant(self, name: str, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _bias(self, name: str, size: int) -> str:
        return self._constant(f"{name}_b", (0.1 * self._rng.standard_normal(size)).astype(self._dtype))

    def _conv(self, x: str, name: str, channels: int) -> str:
        inputs = [self._quantized(x), self._weight(name, (self.channels, channels, 3, 3))]
        return self._node("Conv", [*inputs, self._bias(name, self.channels)], name, pads=[1] * 4)

    def _quantized(self, x: str) -> str:
        if not self._int8 or x.endswith("dequant_y"):
            return x
        scale, zero = self._constant(f"{x}_s", self._dtype(0.03)), self._constant(f"{x}_z", np.int8(0))
        quantized = self._node("QuantizeLinear", [x, scale, zero], f"{x}_quant")
        return self._node("DequantizeLinear", [quantized, scale, zero], f"{x}_dequant")

    def _weight(self, name: str, shape: tuple[int, ...]) -> str:
        values = self._rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        if not self._int8:
            return self._constant(f"{name}_w", values.astype(self._dtype))
        flat = values.reshape(shape[0], -1)
        scale = (np.abs(flat).max(axis=1) / 127).astype(self._dtype)
        steps = np.clip(np.rint(flat / scale[:, None].astype(np.float64)), -127, 127).astype(np.int8)
        inputs = [
            self._constant(f"{name}_w8", steps.reshape(shape)),
            self._constant(f"{name}_ws", scale),
            self._constant(f"{name}_wz", np.zeros(shape[0], np.int8)),
        ]
        return self._node("DequantizeLinear", inputs, f"{name}_w_dequant", axis=0)


@pytest.fixture
def net(tmp_path: Path) -> MakeNet:
    """Function that writes a net and returns its path."""

    def write(precision: str = "fp32", *, batch: int | str = 1) -> Path:
        path = tmp_path / f"{precision}-{batch}.onnx"
        onnx.save(Net(precision, batch).model(), path)
        return path

    return write


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((5, 3, 8, 8)).astype(np.float32)
