"""What the tests of the command line share: a way to call it, a small graph, pictures, one bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from cnnx.cli import app

SIDE, CLASSES = 16, 10


@dataclasses.dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def refuses(self, code: int, *words: str, traces_of: Path | None = None) -> None:
        """It ended with this code, said what, where and how to mend it, and left nothing behind."""
        assert self.code == code, self
        assert "Traceback" not in self.err + self.out and "internal error" not in self.err, self
        assert "error:" in self.err and "mend:" in self.err, self
        for word in words:
            assert word in self.err, (word, self)
        if traces_of is not None:
            assert not traces_of.exists()
            assert not traces_of.parent.is_dir() or not list(traces_of.parent.glob(f".{traces_of.name}*"))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    """Tables keep each cell on one line, so that words can be looked for."""
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture(scope="session")
def call():
    """Run a command in this process."""
    runner = CliRunner()

    def invoke(*arguments: object) -> Said:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        return Said(result.exit_code, result.stdout, result.stderr)

    return invoke


def tiny_graph(seed: int = 0) -> onnx.ModelProto:
    """A user's gray-scale classifier: convolution, ReLU, average, ten logits; the batch is free."""
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> TensorProto:
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["input", "conv.weight"], ["conv"], "conv", pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("MaxPool", ["relu"], ["pool"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["logits"], "fc", transB=1),
    ]
    weights = [weight("conv.weight", 16, 1, 3, 3), weight("fc.weight", CLASSES, 16 * (SIDE // 4) ** 2)]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "tiny", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


@pytest.fixture
def net(tmp_path):
    """The tiny graph as a file of the user's."""
    onnx.save(tiny_graph(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def sets(calibration: int = 8, validation: int = 16) -> list[str]:
    """Options that keep an export of the tiny graph short."""
    return [
        *("--calibration-data", "digits", "--calibration-images", str(calibration)),
        *("--validation-data", "digits", "--validation-images", str(validation)),
    ]


@pytest.fixture
def pictures(tmp_path):
    """A folder of a dozen small photographs' stand-ins."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(1)
    for index in range(12):
        pixels = random.integers(0, 256, (40, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def lenet5(call, tmp_path_factory):
    """LeNet-5 in INT8, exported by the command."""
    pytest.importorskip("torch", reason="exporting LeNet-5 needs PyTorch")
    place = tmp_path_factory.mktemp("lenet5") / "lenet5-int8"
    said = call("export", "lenet5", "--int8", "--target", "ort", "--out", place)
    assert said.code == 0, said
    return place
