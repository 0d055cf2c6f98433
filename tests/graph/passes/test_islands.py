import pytest

from cnnx.graph.inspect import expected_types
from cnnx.graph.load import save_model
from cnnx.graph.passes.fp16 import type_fp16
from cnnx.graph.policy.placement import plan_layers
from cnnx.recipe import LayerOverride, PrecisionPolicy
from cnnx.runtimes import BuildRequest, get
from tests.inputs.graphs import GRAPHS


def test_rtx_keeps_an_fp32_island_in_fp32(tmp_path):
    """Without its activation inside, RTX 1.7.1 computes a lone FP32 convolution in FP16."""
    if reason := get("rtx").missing():
        pytest.skip(str(reason))
    model = GRAPHS["plain"](batch=1)
    policy = PrecisionPolicy(overrides=(LayerOverride("conv2", "fp32", "its sums overflow"),))
    plan = plan_layers(model, precision="fp16", policy=policy, maxima=None)
    typed = type_fp16(model, plan)
    save_model(typed, tmp_path / "model.onnx")
    expected = expected_types(typed)
    assert (expected["conv1"], expected["conv2"]) == ("fp16", "fp32")
    request = BuildRequest(precision="fp16", expected=expected, compute_capabilities=(86,))
    [engine] = get("rtx").build(tmp_path / "model.onnx", request)
    assert engine.layer_types == expected
