"""Engines whose fault is planted: the explanation names it, and the change that helps."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.device import Device
from cnnx.measure.roofline.explanation import Profiled, explain, refined
from cnnx.measure.roofline.peaks import peaks_of
from cnnx.measure.roofline.work import Network
from cnnx.measure.samples import Breakdown, Latency
from cnnx.runtimes import RunTimes
from cnnx.runtimes.layer_times import LayerTime, kind_of_name, kind_of_operator
from cnnx.runtimes.trt.inspector import parse_kernels
from tests.inputs.engines import Planted, chain, residual

CARD = peaks_of(Device("gpu", "NVIDIA GeForce RTX 3090"))
BIG = (8, 256, 56, 56)


def sums_in_floating_point():
    engine = Planted()
    residual(engine, 30, stage="layer1", sums="int8")
    residual(engine, 70, stage="layer3", sums="fp16")
    return engine.profiled(
        batch=8
    ), "70 Q/DQ conversions around layer3 take 15% of the time: keep its Add in INT8"


def pooling_in_floating_point():
    engine = Planted()
    x, conv = engine.tensor("x", "int8", *BIG), engine.tensor("c", "fp16", *BIG)
    pool, q = engine.tensor("p", "fp16", 8, 256, 28, 28), engine.tensor("q", "int8", 8, 256, 28, 28)
    engine.conv("stem.conv", 60, [x], conv, weight="int8")
    engine.layer("stem.MaxPool_1", 20, [conv], pool, "CudaPooling")
    engine.copy("QuantizeLinear_2", 20, pool, q)
    engine.conv("body.conv", 60, [q], engine.tensor("y", "int8", 8, 256, 28, 28), weight="int8")
    return engine.profiled(
        batch=8
    ), "A Q/DQ conversion around stem takes 12% of the time: quantize before its MaxPool"


def layouts_that_differ():
    engine = Planted()
    x, y = engine.tensor("x", "fp16", *BIG), engine.tensor("y", "fp16", *BIG)
    other, z = engine.tensor("other", "fp16", *BIG), engine.tensor("z", "fp16", *BIG)
    engine.conv("a.conv", 400, [x], y, weight="fp16")
    engine.copy("Reformatting CopyNode for Input Tensor 0 to b.conv", 300, y, other)
    engine.conv("b.conv", 400, [other], z, weight="fp16")
    return engine.profiled(
        batch=8
    ), "A reformat around b takes 27% of the time: build with --optimization-level 5"


def an_input_in_floats():
    engine = Planted()
    x, pixels = engine.tensor("input", "fp32", 32, 3, 224, 224), engine.tensor("p", "int8", 32, 3, 224, 224)
    y = engine.tensor("y", "int8", 32, 64, 112, 112)
    engine.copy("Reformatting CopyNode for Input Tensor 0 to conv1", 60, x, pixels)
    engine.conv("conv1", 60, [pixels], y, weight="int8", kernel=7)
    return engine.profiled(batch=32), "Converting the input takes 50% of the time: let the engine take pixels"


def launches():
    engine = Planted()
    last = engine.tensor("t0", "int8", 1, 32, 7, 7)
    for number in range(1, 41):
        following = engine.tensor(f"t{number}", "int8", 1, 32, 7, 7)
        engine.conv(f"conv{number}", 4 + number % 3, [last], following, weight="int8")
        last = following
    return (
        engine.profiled(),
        "40 of 40 layers take hardly longer than a launch (4 us), together 100% of the time: run more",
    )


def a_layer_left_in_fp16():
    engine = Planted()
    x, y = engine.tensor("x", "fp16", *BIG), engine.tensor("y", "int8", *BIG)
    engine.conv("conv1", 100, [x], y, weight="fp16")
    engine.conv("conv2", 50, [y], engine.tensor("z", "int8", *BIG), weight="int8")
    network = Network(precision="int8", reasons={"conv1": "its range is unknown"}, layers={})
    says = "conv1 multiplies in floating point and takes 67% of the time (conv1: its range is unknown): put"
    return engine.profiled(batch=8, network=network), says


def depthwise_in_int8():
    engine = Planted()
    x, y = engine.tensor("x", "int8", *BIG), engine.tensor("y", "int8", *BIG)
    engine.conv("dw", 120, [x], y, weight="int8", groups=256)
    engine.conv("pw", 40, [y], engine.tensor("z", "int8", *BIG), weight="int8", kernel=1)
    return engine.profiled(
        batch=8
    ), "Depthwise convolutions in INT8 take 75% of the time for 3% of the MACs: measure"


def few_channels_in_int8():
    engine = Planted()
    x, y = engine.tensor("x", "int8", 32, 3, 224, 224), engine.tensor("y", "int8", 32, 64, 112, 112)
    engine.conv("conv1", 400, [x], y, weight="int8", kernel=7)
    engine.conv("conv2", 100, [y], engine.tensor("z", "int8", 32, 64, 112, 112), weight="int8")
    return (
        engine.profiled(batch=32),
        "conv1 takes 80% of the time at 8% of its limit, as INT8 kernels want 32 input channels and it has 3",
    )


def a_slow_kernel():
    engine = Planted()
    x, y = engine.tensor("x", "fp16", *BIG), engine.tensor("y", "fp16", *BIG)
    engine.conv("conv1", 900, [x], y, weight="fp16", kernel=1)
    return engine.profiled(
        batch=8
    ), "conv1 attains less than a quarter of the roofline and takes 100% of the time: build with"


def products_near_their_limit():
    engine = Planted()
    x, y = engine.tensor("x", "fp16", *BIG), engine.tensor("y", "fp16", *BIG)
    engine.conv("conv1", 300, [x], y, weight="fp16")
    return engine.profiled(
        batch=8
    ), "Products in FP16 take 100% of the time at 69% of their limit: INT8 has a lower limit"


CASES = (
    sums_in_floating_point,
    pooling_in_floating_point,
    layouts_that_differ,
    an_input_in_floats,
    launches,
    a_layer_left_in_fp16,
    depthwise_in_int8,
    few_channels_in_int8,
    a_slow_kernel,
    products_near_their_limit,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_planted_fault_is_named_with_the_change_that_helps(case):
    profiled, sentence = case()
    found = explain(profiled, CARD)
    assert found.sentence.startswith(sentence)
    assert found.sentence.count(".") == 1 + found.sentence.count("[[precision.overrides]]")
    assert sum(found.shares.values()) == pytest.approx(1)
    assert [cause.saves for cause in found.causes] == sorted((c.saves for c in found.causes), reverse=True)


def test_nothing_stands_out_where_all_is_as_it_should_be():
    """Sums stay in INT8, layers are at 69 % of the roofline."""
    engine = Planted()
    x, y, z = (engine.tensor(name, "int8", *BIG) for name in "xyz")
    engine.conv("conv1", 150, [x], y, weight="int8")
    engine.conv("conv2 + Add_3", 150, [y, x], z, weight="int8")
    found = explain(engine.profiled(batch=8, network=Network(precision="int8")), CARD)
    assert not found.causes and found.attained == pytest.approx(0.69, abs=0.01)
    assert found.sentence == (
        "Nothing stands out: the engine attains 69% of its roofline, and conversions, launches and copies "
        "take 0% of the time."
    )


def test_a_sum_that_needs_floats_is_the_fault_of_the_layers_that_feed_it():
    """A convolution writes FP16 for the sum after the next one, so that its own reader has to quantize."""
    engine = Planted()
    names = ("x", "a", "aq", "b")
    x, a, aq, b = (engine.tensor(n, "fp16" if n in "ab" else "int8", *BIG) for n in names)
    engine.conv("block.conv1", 100, [x], a, weight="int8")
    engine.copy("QuantizeLinear_1", 30, a, aq)
    engine.conv("block.conv2 + Add_2", 100, [aq, a], b, weight="int8")
    assert (
        "around block takes 13% of the time: keep its Add in INT8"
        in explain(engine.profiled(batch=8), CARD).sentence
    )


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (Network(floating_sums=True), 'residual = "int8"'),
        (Network(own_scales=True), "--method mse"),
        (Network(), "shortcut."),
    ],
)
def test_the_change_names_the_setting_that_keeps_a_sum_out_of_int8(network, says):
    engine = Planted()
    residual(engine, 3, stage="layer3", sums="fp16")
    assert says in explain(engine.profiled(batch=8, network=network), CARD).sentence


def latency(h2d, compute, d2h):
    runs = [RunTimes(10, h2d, compute, d2h)] * 3
    return Latency((h2d + compute + d2h,), 1, 1, "steady", True, parts=Breakdown.of(runs), queued_ns=(1,))


def test_copies_take_their_share_and_pixels_are_a_quarter_of_the_bytes():
    engine = Planted()
    chain(engine, 4, us=50)
    profiled = engine.profiled(latency=latency(90_000, 100_000, 10_000))
    found = explain(profiled, CARD)
    assert found.shares["transfer"] == pytest.approx(0.5) and sum(found.shares.values()) == pytest.approx(1)
    cause = next(cause for cause in found.causes if cause.rule == "transfers")
    assert "Copies to and from the GPU take 50% of the time: send pixels" in str(cause)
    assert cause.saves == pytest.approx(0.75 * 0.45)
    pixels = dataclasses.replace(profiled, network=Network(pixels=True))
    assert "second stream" in next(str(c) for c in explain(pixels, CARD).causes if c.rule == "transfers")


def test_without_peaks_shares_and_causes_remain():
    profiled, sentence = sums_in_floating_point()
    found = explain(profiled, None, unknown="no peak rates are listed for a toy")
    assert found.sentence.startswith(sentence) and found.unknown.endswith("a toy")
    assert found.attained is None and found.layers[0].macs and not found.layers[0].bound
    assert found.shares["quantize"] == pytest.approx(0.15, abs=0.01)


def test_a_graph_on_a_cpu_has_its_conversions_explained():
    ops = {"Conv": 60.0, "QuantizeLinear": 30.0, "DequantizeLinear": 10.0}
    times = [LayerTime(op, op, kind_of_operator(op), 1000 * us) for op, us in ops.items()]
    found = explain(Profiled(times, engine=False), None, unknown="no peak rates are listed for CPUs")
    assert found.sentence.startswith("Q and DQ take 40% of the time, as ONNX Runtime runs them one by one")
    assert found.shares["launch"] == 0 and found.launch_ns == 0


def test_kernels_that_only_requantize_are_named():
    """TensorRT for RTX 1.7.1 writes floats after INT8 convolutions, and requantizes in other kernels."""
    engine = Planted()
    x, floats, y = (engine.tensor(n, "fp32" if n == "f" else "int8", *BIG) for n in "xfy")
    engine.conv("conv1", 150, [x], floats, weight="int8")
    engine.layer("__myl_MulCastAddReluMulMinMaxRounCast_myl0_2", 90, [floats], y, "kgen")
    found = explain(engine.profiled(batch=8), CARD)
    assert found.sentence.startswith(
        "A kernel of its own quantizes what INT8 layers wrote as floats, and takes 38%"
    )
    assert "compare with FP16" in found.sentence and found.shares["compute"] == 1


def test_kinds_follow_the_types_that_a_layer_reads_and_writes():
    engine = Planted()
    a, b, c = (engine.tensor(n, kind, *BIG) for n, kind in (("a", "fp32"), ("b", "fp16"), ("c", "int8")))
    b2 = engine.tensor("b2", "fp16", *BIG)
    engine.copy("Reformatting CopyNode for Input Tensor 0 to x", 9, a, b)
    engine.copy("Reformatting CopyNode for Input Tensor 0 to y", 9, b, b2)
    engine.copy("something", 9, b2, c)
    engine.layer("transposed", 9, [a], a, "Shuffle")
    engine.layer("pool", 9, [b], b, "CudaPooling")
    kinds = [time.kind for time in refined(engine.profiled())]
    assert kinds == ["cast", "reformat", "quantize", "reformat", "compute"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "Name": st.sampled_from("abc"),
        "Dimensions": st.lists(st.integers(-1, 3), max_size=5) | JSON,
        "Format/Datatype": st.sampled_from(["Int8", "Half", "FP32", "N/A"]) | JSON,
    },
)
ENTRY = st.fixed_dictionaries(
    {"Name": st.sampled_from(("a", "b + Add_1", "Reformatting CopyNode for x", "{ForeignNode[a...b]}"))},
    optional={
        "LayerType": st.sampled_from(["Reformat", "NoOp", "CaskConvolution", "Shuffle"]) | JSON,
        "Inputs": st.lists(TENSOR | JSON, max_size=3) | JSON,
        "Outputs": st.lists(TENSOR | JSON, max_size=3) | JSON,
        "Weights": st.fixed_dictionaries({"Type": st.just("Int8"), "Count": st.integers(-1, 9) | JSON})
        | JSON,
        "Groups": JSON,
        "Constants": JSON,
        "Metadata": JSON,
    },
)


@given(st.lists(ENTRY | JSON, max_size=6), st.lists(st.floats(0, 1e9), min_size=6, max_size=6))
def test_whatever_a_builder_reports_is_explained(layers, times):
    kernels = parse_kernels(json.dumps({"Layers": layers}))
    profiled = [
        LayerTime(each.name, "", kind_of_name(each.name), time)
        for each, time in zip(kernels, times, strict=False)
    ]
    for peaks in (CARD, None):
        found = explain(Profiled(profiled, kernels, batch=2, inspected=3), peaks)
        assert found.sentence.endswith(".") and all(0 <= share <= 1 for share in found.shares.values())
        assert all(0 <= cause.saves <= 1 and 0 <= cause.share <= 1 for cause in found.causes)
        json.dumps(found.as_dict(), allow_nan=False)
