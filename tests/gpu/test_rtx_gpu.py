"""TensorRT for RTX on a card: the built engine runs and agrees with the ONNX reference.

The shared conformance tests run there too; here is what only engines have: ranges of batches, FP16
outputs, memory given back, and engines that are not for this machine.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cnnx import runtimes
from cnnx.errors import BundleError, UsageError
from cnnx.runtimes import BuildRequest

RTX = runtimes.get("rtx")
REASON = RTX.cannot_run()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def graph(tmp_path):
    """One FP16 convolution, dynamic batch, FP16 output."""
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["input"], ["half"], name="cast", to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["features"], name="relu"),
    ]
    ends = (
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT16, ["N", 8, 6, 6])],
    )
    net = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(net, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def engine(graph):
    (built,) = RTX.build(graph, BuildRequest("fp16", {"conv": "fp16"}, batch=(2, 4, 4)))
    path = graph.with_name(built.file_name)
    path.write_bytes(built.plan)
    return path


def test_any_number_of_images_agrees_with_the_reference(graph, engine):
    images = np.random.default_rng(1).standard_normal((11, 3, 8, 8)).astype(np.float32)
    expected = ReferenceEvaluator(onnx.load(graph)).run(None, {"input": images})[0]
    session = RTX.open(engine)
    try:
        for count in (4, 2, 10, 1, 4):
            found = session.run(images[:count])["features"]
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[:count], rtol=2e-2, atol=2e-2)
        with pytest.raises(UsageError, match="1 images are not one batch"):
            session.timed_run(images[:1])
    finally:
        session.close()


def test_memory_is_given_back(engine):
    """A hundred sessions of which each keeps its memory would be seen."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    images = np.zeros((4, 3, 8, 8), np.float32)

    def after_one_session() -> int:
        session = RTX.open(engine)
        session.run(images)
        session.close()
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)

    first = after_one_session()
    last = [after_one_session() for _ in range(100)][-1]
    pynvml.nvmlShutdown()
    assert last - first < 64 << 20


def test_a_damaged_engine_is_refused(engine):
    engine.write_bytes(engine.read_bytes()[:1000])
    with pytest.raises(BundleError, match="does not accept the engine"):
        RTX.open(engine)
