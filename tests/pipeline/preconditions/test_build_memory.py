"""The predicted peak of a build, and the warning before it fails."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnx.bundle import Bundle
from cnnx.errors import CnnxError
from cnnx.graph.footprint import predict_memory
from cnnx.options.bundles import EngineOptions
from cnnx.pipeline import build
from cnnx.pipeline.preconditions.build_memory import FreeMemory, memory_warning, predict_build
from cnnx.pipeline.progress import Steps
from cnnx.runtimes import get
from cnnx.store.cache import Store
from tests.inputs.programs import run

MIB = 2**20
GIB = 2**30


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """One product of 40 MiB."""
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    weights = np.random.default_rng(0).standard_normal((4096, 5120)).astype(np.float16)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="fc", transB=1)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", size])
        for name, size in (("x", 5120), ("y", 4096))
    ]
    made = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=10), file)
    return file


def predicted(file, **more):
    memory = predict_memory(onnx.load(file), 8)
    return predict_build(memory, file, **{"workspace": None, "here": True, **more})


def test_a_build_on_a_board_of_4_gb_is_warned_about_before_it_fails(graph):
    """Memory of a Jetson is for the host's copies, the plan and the activations together."""
    needed = predicted(graph)
    assert needed.host == int(3.1 * graph.stat().st_size) + 80 * MIB
    assert needed.device == graph.stat().st_size + 2 * 8 * (5120 + 4096)
    assert predicted(graph, workspace=256 * MIB).device == needed.device + 256 * MIB
    for free, shared in ((GIB, True), (220 * MIB, True), (210 * MIB, False)):
        warning = memory_warning(needed, FreeMemory(free, None, shared))
        assert ("may fail" in warning) == (free == 220 * MIB)
    assert "244 MiB of memory, and 220 MiB are free" in memory_warning(
        needed, FreeMemory(220 * MIB, None, True)
    )
    card = memory_warning(needed, FreeMemory(8 * GIB, 30 * MIB))
    assert "40 MiB of GPU memory, and 30 MiB are free" in card and "--workspace" in card
    assert memory_warning(needed, FreeMemory(None, None)) == ""
    assert predicted(graph, here=False).device == 0


def test_the_warning_comes_before_the_build(tiny_bundle, tmp_path, monkeypatch):
    told, opened = [], Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    monkeypatch.setattr(build, "_free", lambda: FreeMemory(MIB, None, True))

    class Runtime:
        name = "tensorrt"

        def version(self):
            return "10.3"

        def cannot_run(self):
            return CnnxError("none")

        def build(self, model, request):
            told.append("build")
            return []

    steps = Steps(lambda event: told.append(event.step), store=Store(tmp_path / "cache"))
    build.build_into(opened, Runtime(), EngineOptions(), steps)
    assert "may fail" in told[0] and "build" in told


@pytest.mark.skipif(get("rtx").missing() is not None, reason="needs TensorRT for RTX")
def test_the_prediction_is_near_what_a_build_takes(graph, tmp_path):
    """In a process of its own, as memory freed before would be used again."""
    code = f"""
from pathlib import Path
from cnnx.measure.memory import peak_memory
from cnnx.runtimes import BuildRequest, get
rtx = get("rtx"); rtx.library()
request = BuildRequest("fp16", {{}}, batch=(1, 8, 8), compute_capabilities=(86,))
print(peak_memory(lambda: rtx.build(Path({str(graph)!r}), request))[1].added_bytes)
"""
    added = int(run(sys.executable, "-c", code).stdout.splitlines()[-1])
    assert added == pytest.approx(predicted(graph, here=False).host, rel=0.4)
