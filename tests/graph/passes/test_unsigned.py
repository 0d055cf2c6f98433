"""Unsigned activations: the same integers, in a form that ONNX Runtime fuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from cnnx.graph.passes.center import center, never_negative
from cnnx.graph.passes.qdq import insert_qdq
from cnnx.graph.passes.unsigned import with_unsigned_activations
from cnnx.graph.policy.placement import plan_layers, tensors_to_calibrate
from cnnx.recipe import PrecisionPolicy
from cnnx.runtimes import RunOptions
from cnnx.runtimes.ort.runtime import OrtRuntime
from tests.inputs.graphs import GRAPHS, Sketch, images, maxima_of


def pooled():
    s = Sketch()
    x = s.node("Relu", [s.conv("input", "conv1", 3, 16)], "relu1")
    x = s.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = s.node("Relu", [s.conv(x, "conv2", 16, 16)], "relu2")
    x = s.node("Relu", [s.conv(x, "conv3", 16, 16)], "relu3")
    return s.classify(s.node("GlobalAveragePool", [x], "gap"), 16)


def quantized(model, *, clip=1.0, centered=False):
    maxima = {name: clip * amax for name, amax in maxima_of(model, images()).items()}
    plan = plan_layers(model, precision="int8", policy=PrecisionPolicy(), maxima=maxima, scales="fp32")
    ranges = dict(maxima)
    if centered:
        highs = {name: maxima[name] for name in never_negative(model) if name in maxima}
        model, shifted = center(model, tensors_to_calibrate(model, plan), highs, scales="fp32")
        ranges |= {name: each.amax for name, each in shifted.items()}
    return insert_qdq(model, plan, ranges=ranges, scales="fp32")


def outputs(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"input": each[None]})[0] for each in x])


@pytest.mark.parametrize("make", [pooled, *GRAPHS.values()], ids=["pooled", *GRAPHS])
@pytest.mark.parametrize("clip", [1.0, 0.3])
@pytest.mark.parametrize("centered", [False, True])
def test_every_value_stays_the_same_bit_by_bit_even_where_ranges_clip(make, clip, centered):
    model = quantized(make(), clip=clip, centered=centered)
    before = model.SerializeToString()
    changed = with_unsigned_activations(model)
    onnx.checker.check_model(changed, full_check=True)
    assert model.SerializeToString() == before
    x = 3 * images(8)
    np.testing.assert_array_equal(outputs(changed, x), outputs(model, x))


def test_only_activations_between_convolution_and_relu_become_unsigned():
    changed = with_unsigned_activations(quantized(pooled()))
    types = {each.name: each.data_type for each in changed.graph.initializer}
    zeros = Counter(types[n.input[2]] for n in changed.graph.node if n.op_type == "QuantizeLinear")
    assert zeros == {TensorProto.UINT8: 2, TensorProto.INT8: 2}  # the image, and what is pooled on average
    makers = {name: node for node in changed.graph.node for name in node.output}
    unsigned = [n for n in changed.graph.node if n.op_type == "QuantizeLinear" and types[n.input[2]] == 2]
    assert {makers[n.input[0]].op_type for n in unsigned} == {"Conv"}


def test_without_the_pattern_or_below_opset_12_nothing_changes():
    model = quantized(GRAPHS["branching"]())
    assert with_unsigned_activations(model) == model
    old = quantized(pooled())
    old.opset_import[0].version = 11
    assert with_unsigned_activations(old) == old


def test_onnx_runtime_fuses_it_only_if_asked_to(tmp_path):
    """The default session computes what the graph states; the other one rounds like integer kernels."""
    file = tmp_path / "m.onnx"
    onnx.save(with_unsigned_activations(quantized(pooled())), file)
    runtime, x = OrtRuntime(), images(1)
    exact, fused = (runtime.open(file, RunOptions(fuse_qdq=fuse)) for fuse in (False, True))
    expected = outputs(onnx.load(file), x)
    np.testing.assert_allclose(exact.run(x)["logits"], expected, rtol=1e-5, atol=1e-6)
    differs = np.abs(fused.run(x)["logits"] - expected).max() / np.abs(expected).max()
    assert differs < 0.05
    ops = {
        f"{each.name} {each.op}"
        for each in runtime.layer_times(file, x, runs=1, options=RunOptions(fuse_qdq=True))
    }
    assert any("QLinearConv" in each for each in ops), ops
