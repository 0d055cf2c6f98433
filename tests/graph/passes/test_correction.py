"""Bias correction: rounded weights shift no channel on average."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from cnnx.graph.lint import lint
from cnnx.graph.passes.correction import mean_output_error
from cnnx.graph.passes.qdq import insert_qdq, quantize_weight
from cnnx.graph.policy.placement import plan_layers, tensors_to_calibrate
from cnnx.options import Scales
from cnnx.recipe import PrecisionPolicy
from tests.inputs.graphs import Sketch, images, run

Floats = NDArray[np.float32]
POLICY = PrecisionPolicy(small_layers="int8", reason="test")


def network(*, group: int, biased: bool, trans_b: int) -> ModelProto:
    """A 1x1 convolution, which has no edges, and a Gemm, both behind a ReLU."""
    s = Sketch(seed=3)
    x = s.node("Relu", [s.conv("input", "stem", 3, 16)], "relu")
    x = s.node("Relu", [s.conv(x, "conv", 16, 32, kernel=1, group=group)], "relu2")
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), 32)
    for node in model.graph.node:
        if node.name == "conv" and not biased:
            del node.input[2]
        if node.op_type == "Gemm" and not trans_b:
            weight = next(each for each in model.graph.initializer if each.name == node.input[1])
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), weight.name))
            next(each for each in node.attribute if each.name == "transB").i = 0
    return model


def channel_means(model: ModelProto, tensors: list[str], x: Floats) -> dict[str, Floats]:
    wide = ModelProto()
    wide.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    for name in tensors:
        if name not in given and name != "input":
            wide.graph.output.add(name=name)
    found = {**run(wide, x), "input": x}
    return {n: found[n].reshape(len(x), found[n].shape[1], -1).mean(axis=(0, 2)) for n in tensors}


@pytest.mark.parametrize("group, trans_b", [(1, 1), (4, 1), (1, 0), (2, 0)])
def test_the_shift_is_what_rounded_weights_lack_on_average(group: int, trans_b: int) -> None:
    model, x = network(group=group, biased=True, trans_b=trans_b), images(16)
    constants = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in ("conv", "fc"):
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        axis = 0 if node.name == "conv" or trans_b else 1
        integers, scale = quantize_weight(weight, axis=axis, scales="fp16")
        spread = scale.reshape([-1 if place == axis else 1 for place in range(weight.ndim)])
        rounded = ModelProto()
        rounded.CopyFrom(model)
        place = [each.name for each in model.graph.initializer].index(node.input[1])
        rounded.graph.initializer[place].CopyFrom(numpy_helper.from_array(integers * spread, node.input[1]))
        before, after = (
            channel_means(each, list(node.output), x)[node.output[0]] for each in (model, rounded)
        )
        mean = channel_means(model, [node.input[0]], x)[node.input[0]]
        found = mean_output_error(node, weight, quantized=integers, scale=scale, mean=mean)
        assert np.abs(before - after).max() > 1e-4
        np.testing.assert_allclose(found, before - after, atol=2e-6)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("scales", ["fp16", "fp32"])
def test_biases_take_up_the_shift_where_means_are_known(biased: bool, scales: Scales) -> None:
    model = network(group=1, biased=biased, trans_b=1)
    plan = plan_layers(model, precision="int8", policy=POLICY, maxima=None, scales=scales)
    read = list(tensors_to_calibrate(model, plan))
    means = {name: tuple(map(float, mean)) for name, mean in channel_means(model, read, images(8)).items()}
    plain, corrected = (
        insert_qdq(model, plan, ranges=dict.fromkeys(read, 8.0), scales=scales, means=given)
        for given in (None, means)
    )
    biases = [
        {
            node.name: numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else 0
            for node in graph.graph.node
            if node.op_type in ("Conv", "Gemm")
        }
        for graph in (plain, corrected)
        for constants in [{each.name: each for each in graph.graph.initializer}]
    ]
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in (each for each in model.graph.node if each.op_type in ("Conv", "Gemm")):
        weight = weights[node.input[1]]
        integers, scale = quantize_weight(weight, axis=0, scales=scales)
        mean = np.array(means[node.input[0]], np.float32)
        shift = mean_output_error(node, weight, quantized=integers, scale=scale, mean=mean)
        assert np.abs(shift).max() > 1e-4
        np.testing.assert_allclose(biases[1][node.name] - biases[0][node.name], shift, atol=1e-6)
    assert len(corrected.graph.initializer) == len(plain.graph.initializer) + (not biased)
    assert not [finding for finding in lint(corrected) if finding.severity == "error"]


def test_a_bias_that_would_leave_fp16_stays_as_it_is() -> None:
    model = network(group=1, biased=True, trans_b=1)
    bias = next(each for each in model.graph.initializer if each.name == "conv.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(32, 65503, np.float32), bias.name))
    plan = plan_layers(model, precision="int8", policy=POLICY, maxima=None, scales="fp16")
    ranges = dict.fromkeys(tensors_to_calibrate(model, plan), 40.0)
    means = {"relu": (2e4,) * 16}
    found = insert_qdq(model, plan, ranges=ranges, scales="fp16", means=means)
    assert found == insert_qdq(model, plan, ranges=ranges, scales="fp16")


@pytest.mark.parametrize("scaled", ["alpha", "beta"])
def test_a_gemm_that_scales_its_product_or_its_bias_is_left_alone(scaled: str) -> None:
    model = network(group=1, biased=True, trans_b=1)
    fc = next(node for node in model.graph.node if node.op_type == "Gemm")
    fc.attribute.append(helper.make_attribute(scaled, 0.5))
    plan = plan_layers(model, precision="int8", policy=POLICY, maxima=None, scales="fp32")
    ranges = dict.fromkeys(tensors_to_calibrate(model, plan), 40.0)
    means = {fc.input[0]: (1.0,) * 32}
    assert insert_qdq(model, plan, ranges=ranges, scales="fp32", means=means) == insert_qdq(
        model, plan, ranges=ranges, scales="fp32"
    )


def test_means_that_are_not_the_channels_read_are_left_alone() -> None:
    model = network(group=1, biased=True, trans_b=1)
    plan = plan_layers(model, precision="int8", policy=POLICY, maxima=None, scales="fp32")
    ranges = dict.fromkeys(tensors_to_calibrate(model, plan), 40.0)
    wrong = dict.fromkeys(ranges, (1.0, 2.0))
    assert insert_qdq(model, plan, ranges=ranges, scales="fp32", means=wrong) == insert_qdq(
        model, plan, ranges=ranges, scales="fp32"
    )
