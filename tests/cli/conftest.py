import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from cnnx.cli.app import app

DIGITS = ("--calibration-data", "digits", "--calibration-images", "16", "--validation-data", "digits")
FEW = (*DIGITS, "--validation-images", "16")


@pytest.fixture
def cnnx_command():
    """Run a command in this process; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.output
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def cnnx_process():
    """Run a command in a process of its own; gives the finished process."""

    def run(*arguments, **options):
        command = [str(Path(sys.executable).parent / "cnnx"), *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200", **options.pop("env", {})}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=environment, **options
        )

    return run


def tiny_graph(*, op="Relu"):
    """A classifier of 32x32 gray pictures: one convolution, an activation, one Gemm."""
    random = np.random.default_rng(0)
    constants = {
        "conv.weight": random.normal(size=(16, 1, 5, 5)) / 5,
        "conv.bias": np.zeros(16),
        "fc.weight": random.normal(size=(10, 16 * 14 * 14)) / 56,
        "fc.bias": np.zeros(10),
    }
    nodes = [
        helper.make_node("Conv", ["input", "conv.weight", "conv.bias"], ["conv"], "conv", strides=[2, 2]),
        helper.make_node(op, ["conv"], ["act"], "act"),
        helper.make_node("Flatten", ["act"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


@pytest.fixture
def tiny(tmp_path):
    onnx.save(tiny_graph(), tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, cache):
    """A whole INT8 bundle, made without PyTorch."""
    folder = tmp_path_factory.mktemp("tiny")
    onnx.save(tiny_graph(), folder / "tiny.onnx")
    out = folder / "bundle"
    result = CliRunner().invoke(
        app, ["export", str(folder / "tiny.onnx"), "--int8", *FEW, "--out", str(out), "--json"]
    )
    assert json.loads(result.stdout)["result"]["bundle"]["path"] == str(out)
    return out
