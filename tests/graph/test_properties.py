"""What holds of every graph: of small random networks, whatever their shape and their values."""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cnnx.graph.lint import lint
from cnnx.graph.passes.fp16 import type_fp16
from cnnx.graph.passes.qdq import insert_qdq
from cnnx.graph.policy.placement import LayerPlan, plan_layers, tensors_to_calibrate, tensors_to_observe
from cnnx.options import Scales
from cnnx.recipe import LayerOverride, PrecisionPolicy
from tests.inputs.graphs import Sketch, images, maxima_of, run

KINDS = {"fp16": np.float16, "fp32": np.float32}
POLICY = PrecisionPolicy(small_layers="int8", reason="test")
scale_types = st.sampled_from(["fp16", "fp32"])
few = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def networks(draw: st.DrawFn) -> ModelProto:
    """Up to five blocks, plain, residual, forked, pooled or dead, of weights from nearly nothing to a lot."""
    s = Sketch(seed=draw(st.integers(0, 2**16)))
    x, channels = "input", 3
    for number in range(draw(st.integers(1, 5))):
        name, outputs = f"b{number}", draw(st.sampled_from([4, 8, 16]))
        kernel = draw(st.sampled_from([1, 3]))
        made = s.conv(x, name, channels, outputs, kernel=kernel)
        scale = draw(st.sampled_from([0.0, 1e-9, 1e-4, 1.0, 1.0, 1.0, 30.0, 1e6]))
        s.constants[-2].CopyFrom(
            numpy_helper.from_array(
                numpy_helper.to_array(s.constants[-2]) * np.float32(scale), f"{name}.weight"
            )
        )
        kind = draw(st.sampled_from(["plain", "residual", "projection", "fork", "pool"]))
        if kind == "residual" and outputs == channels:
            made = s.node("Add", [made, x], f"{name}.add")
        if kind == "projection":
            made = s.node(
                "Add", [made, s.conv(x, f"{name}.side", channels, outputs, kernel=1)], f"{name}.add"
            )
        if kind == "fork":
            other = s.conv(x, f"{name}.side", channels, 4, kernel=1)
            made, outputs = s.node("Concat", [made, other], f"{name}.concat", axis=1), outputs + 4
        x, channels = s.node(draw(st.sampled_from(["Relu", "Sigmoid"])), [made], f"{name}.act"), outputs
        if kind == "pool":
            x = s.node("MaxPool", [x], f"{name}.max", kernel_shape=[3, 3], pads=[1] * 4)
    return s.classify(s.node("GlobalAveragePool", [x], "gap"), channels)


def planned(model: ModelProto, ranges: Mapping[str, float], scales: Scales) -> tuple[LayerPlan, ...]:
    return plan_layers(model, precision="int8", policy=POLICY, maxima=ranges, scales=scales)


def quantized(
    model: ModelProto, scales: Scales
) -> tuple[ModelProto, tuple[LayerPlan, ...], dict[str, float]]:
    ranges = maxima_of(model, images())
    plan = planned(model, ranges, scales)
    graph = insert_qdq(model, plan, ranges=ranges, scales=scales)
    return (type_fp16(graph, plan) if scales == "fp16" else graph), plan, ranges


def quantizers(model: ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]


@few
@given(networks(), scale_types)
def test_what_is_emitted_is_valid_lints_and_has_sound_scales(model: ModelProto, scales: Scales) -> None:
    before = model.SerializeToString(deterministic=True)
    graph, plan, ranges = quantized(model, scales)
    onnx.checker.check_model(graph, full_check=True)
    assert [finding for finding in lint(graph) if finding.severity == "error"] == []
    assert model.SerializeToString(deterministic=True) == before
    constants = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    for node in quantizers(graph):
        scale, zero = (constants[name] for name in node.input[1:])
        wide = scale.astype(np.float64)
        assert (wide > 0).all() and np.isfinite(wide).all() and (wide >= 2.0**-20).all() | (scales == "fp32")
        assert (wide.astype(KINDS[scales]) == wide).all()  # FP16 holds it, and no digit was lost
        assert zero.dtype == np.int8 and not zero.any()
    for tensor in tensors_to_calibrate(model, plan):
        assert ranges[tensor] >= 127 * 2.0**-20 or scales == "fp32"
    assert np.isfinite(run(graph, images())["logits"]).all()


@few
@given(networks(), scale_types, st.floats(0.25, 1))
def test_inside_a_range_half_a_scale_is_lost_and_outside_it_is_clipped(
    model: ModelProto, scales: Scales, share: float
) -> None:
    ranges = {name: each * share for name, each in maxima_of(model, images()).items()}
    plan = planned(model, ranges, scales)
    graph = insert_qdq(model, plan, ranges=ranges, scales=scales)
    constants = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    pairs = {}
    for node in list(graph.graph.node):
        if node.op_type == "QuantizeLinear":
            source, back = node.input[0], f"{node.input[0]}.dequantized"
            pairs[source] = (back, float(constants[node.input[1]]))
            for name in {source, back} - {value.name for value in graph.graph.output} - {"input"}:
                graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    found = {"input": images(), **run(graph, images())}
    for source, (back, scale) in pairs.items():
        values, again = found[source].astype(np.float64), found[back].astype(np.float64)
        inside = np.abs(values) <= 127 * scale
        assert (np.abs(again - values)[inside] <= scale / 2 * (1 + 1e-5)).all()
        # ONNX clips to all of INT8, so a step further below zero than above.
        clipped = np.clip(np.rint(values / scale), -128, 127)[~inside]
        np.testing.assert_allclose(again[~inside], clipped * scale, rtol=1e-6)
        assert (np.abs(clipped) >= 127).all() and (clipped * values[~inside] > 0).all()
        assert 127 * scale >= ranges[source]


@few
@given(networks())
def test_nothing_quantized_is_nothing_changed(model: ModelProto) -> None:
    for maxima in ({}, dict.fromkeys(maxima_of(model, images()), float("nan"))):
        plan = plan_layers(model, precision="int8", policy=POLICY, maxima=maxima, scales="fp32")
        assert insert_qdq(model, plan, ranges={}, scales="fp32") == model


def in_another_order(model: ModelProto, seed: int) -> ModelProto:
    """The same graph, its nodes in another order in which each follows what it reads."""
    chance, shuffled = random.Random(seed), ModelProto()
    shuffled.CopyFrom(model)
    waiting, made = list(model.graph.node), {"input"} | {t.name for t in model.graph.initializer}
    del shuffled.graph.node[:]
    ready: list[tuple[float, int]] = []
    queued: set[int] = set()
    while len(shuffled.graph.node) < len(waiting):
        for place, node in enumerate(waiting):
            if place not in queued and set(node.input) <= made:
                queued.add(place)
                heapq.heappush(ready, (chance.random(), place))
        node = waiting[heapq.heappop(ready)[1]]
        shuffled.graph.node.append(node)
        made.update(node.output)
    constants = list(model.graph.initializer)
    chance.shuffle(constants)
    del shuffled.graph.initializer[:]
    shuffled.graph.initializer.extend(constants)
    return shuffled


@few
@given(networks(), st.integers(0, 2**16), scale_types)
def test_the_order_of_nodes_means_nothing(model: ModelProto, seed: int, scales: Scales) -> None:
    other = in_another_order(model, seed)
    onnx.checker.check_model(other)

    def facts(graph: ModelProto) -> tuple[Any, ...]:
        typed, plan, ranges = quantized(graph, scales)
        tensors = set(tensors_to_calibrate(graph, plan))
        written = {t.name: t.SerializeToString() for t in typed.graph.initializer}
        return {layer.node: layer for layer in plan}, tensors, ranges, written

    assert facts(other) == facts(model)


@few
@given(model=networks(), data=st.data())
def test_whatever_returns_to_fp16_only_what_was_observed_is_quantized(
    model: ModelProto, data: st.DataObject
) -> None:
    """As repair does it, and images that leave a layer without a range."""
    plan = plan_layers(model, precision="int8", policy=POLICY, maxima=None)
    int8 = [layer.node for layer in plan if layer.precision == "int8"]
    out = data.draw(st.sets(st.sampled_from(int8))) if int8 else set()
    policy = PrecisionPolicy(
        small_layers="int8",
        reason="test",
        overrides=tuple(LayerOverride(name, "fp16", "test") for name in sorted(out)),
    )
    less = plan_layers(model, precision="int8", policy=policy, maxima=None)
    assert set(tensors_to_calibrate(model, less)) <= set(tensors_to_observe(model, plan))
