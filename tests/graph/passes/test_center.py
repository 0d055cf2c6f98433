"""Centered activations: the same function, and all steps of INT8 for what is never negative."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from cnnx.graph.passes.center import center, never_negative
from cnnx.graph.passes.qdq import insert_qdq
from cnnx.graph.policy.placement import plan_layers, tensors_to_calibrate
from cnnx.recipe import PrecisionPolicy

POINTWISE = "kernel_shape=[1,1]"
PADDED = "kernel_shape=[3,3], pads=[1,1,1,1]"
BLOCK = f"""
    a = Conv<{PADDED}>(x, W_a:16x8x3x3, B_a:16)
    r = Relu(a)
    b = Conv<{POINTWISE}>(r, W_b:16x16x1x1)
    s = Relu(b)
    c = Conv<{POINTWISE}>(s, W_c:16x16x1x1, B_c:16)
    t = Add({{order}})
    u = Relu(t)
    d = Conv<{POINTWISE}>(u, W_d:8x16x1x1, B_d:8)
    y = Clip(d, lo, hi)
    g = GlobalAveragePool(y)
    f = Flatten(g)
    out = Gemm<transB=1>(f, W_f:5x8, B_f:5)
"""
DENSE = f"""
    a = Conv<{POINTWISE}>(x, W_a:16x8x1x1, B_a:16)
    n = BatchNormalization(a, B_1:16, B_2:16, B_3:16, V:16)
    r = Relu(n)
    b = Conv<{POINTWISE}>(r, W_b:16x16x1x1, B_b:16)
    m = Add(b, W_m:16x1x1)
    s = Relu(m)
    p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(s)
    q = Concat<axis=1>(r, p)
    c = Conv<{POINTWISE}>(q, W_c:16x32x1x1, B_c:16)
    k = Relu(c)
    v = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(k)
    d = Conv<{POINTWISE}, group=2>(v, W_d:8x8x1x1, B_d:8)
    e = Relu(d)
    g = GlobalAveragePool(e)
    f = Flatten(g)
    out = Gemm(f, W_f:8x5)
"""


def network(text, seed=0):
    """A graph of 8 x 6 x 6 images; W_*, B_* and V are random constants of the shapes behind their names."""
    random, constants, lines = np.random.default_rng(seed), {}, []
    for line in text.strip().splitlines():
        words = line.replace("(", "( ").replace(")", " )").replace(", ", " , ").split(" ")
        for number, word in enumerate(words):
            name, colon, shape = word.partition(":")
            if colon and name[0] in "WBV":
                values = random.normal(size=[int(each) for each in shape.split("x")])
                constants[name] = np.abs(values) + 0.5 if name == "V" else values / 3 + (name[0] == "B") / 5
                words[number] = name
        lines.append(" ".join(words))
    body = "\n".join(lines)
    header = '<ir_version: 10, opset_import: ["": 20]>\n'
    model = onnx.parser.parse_model(f"{header}net (float[N,8,6,6] x) => (float[N,5] out) {{\n{body}\n}}")
    constants |= {"lo": np.array(0.0), "hi": np.array(6.0)}
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model, full_check=True)
    return model


def tensors_of(model, images):
    """All activations of a graph."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output]
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options)
    return dict(zip(names, session.run(None, {"x": images}), strict=True))


def centered(model, images):
    """The graph, its plan, and what `center` makes of it, with ranges that clip nothing."""
    plan = plan_layers(model, precision="int8", policy=PrecisionPolicy(small_layers="int8"), maxima=None)
    seen = tensors_of(model, images)
    read = tensors_to_calibrate(model, plan)
    amax = {name: float(np.abs(seen.get(name, images)).max()) for name in read}
    highs = {name: amax[name] for name in read if name in never_negative(model)}
    return plan, amax, *center(model, read, highs, scales="fp16")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (BLOCK.format(order="r, c"), {"r", "s", "u", "f"}),
        (BLOCK.format(order="c, r"), {"r", "s", "u", "f"}),
        (DENSE, {"r", "q", "v", "f"}),
    ],
)
def test_the_function_stays_and_what_is_never_negative_is_shifted(text, names):
    model = network(text)
    images = np.random.default_rng(1).normal(size=(4, 8, 6, 6)).astype(np.float32)
    plan, amax, shifted, found = centered(model, images)
    assert found.keys() == names & amax.keys() and found
    before, after = tensors_of(model, images), tensors_of(shifted, images)
    np.testing.assert_allclose(after["out"], before["out"], rtol=1e-4, atol=1e-4)
    for name, each in found.items():
        np.testing.assert_allclose(after[name], before[name] - each.zero, rtol=1e-4, atol=1e-4)
        assert each.largest == pytest.approx(each.zero + each.amax) and each.largest >= amax[name]
        step = each.amax / 127
        assert np.float16(step) == step and np.float16(each.zero) == each.zero == 128 * step

    means = {
        name: tuple(before.get(name, images).mean(axis=(0, 2, 3)[: before.get(name, images).ndim - 1]))
        for name in amax
    }
    noise = []
    for graph, by in ((model, {}), (shifted, found)):
        ranges = {name: by[name].amax if name in by else amax[name] for name in amax}
        known = {
            name: [value - (by[name].zero if name in by else 0) for value in means[name]] for name in amax
        }
        quantized = insert_qdq(graph, plan, ranges=ranges, scales="fp16", means=known)
        noise.append(np.square(tensors_of(quantized, images)["out"] - before["out"]).mean())
    assert noise[1] < 0.8 * noise[0]


def test_a_bias_beyond_fp16_leaves_what_it_reads_unshifted():
    model = network(BLOCK.format(order="r, c"))
    for tensor in model.graph.initializer:
        if tensor.name == "W_d":  # reads u
            large = numpy_helper.to_array(tensor) + 1e4
            tensor.CopyFrom(numpy_helper.from_array(large.astype(np.float32), tensor.name))
    images = np.random.default_rng(1).normal(size=(4, 8, 6, 6)).astype(np.float32)
    _, _, shifted, found = centered(model, images)
    assert found.keys() == {"r", "s", "f"}
    largest = {t.name: np.abs(numpy_helper.to_array(t)).max() for t in shifted.graph.initializer}
    assert all(value <= 65504 for value in largest.values()), largest


@pytest.mark.parametrize(
    "text",
    [
        f"r = Relu(x)\nc = Conv<{POINTWISE}>(r, W_c:8x8x1x1)\n",  # nothing can take up the shift of an input
        f"a = Conv<{POINTWISE}>(x, W_a:8x8x1x1)\nr = Relu(a)\nc = Conv<{PADDED}>(r, W_c:8x8x3x3)\n",
        f"a = Conv<{POINTWISE}>(x, W_a:8x8x1x1)\nr = Sigmoid(a)\nc = Conv<{POINTWISE}>(r, W_c:8x8x1x1)\n",
        f"a = Conv<{POINTWISE}>(x, W_a:8x8x1x1)\nr = Relu(a)\nc = Conv<{POINTWISE}>(r, W_c:8x8x1x1)\n"
        "e = Mul(r, r)\n",
        f"a = Conv<{POINTWISE}>(x, W_a:8x8x1x1)\nr = Relu(a)\nq = Concat<axis=1>(r, x)\n"
        f"c = Conv<{POINTWISE}>(q, W_c:8x16x1x1)\n",
        f"a = Conv<{POINTWISE}>(x, W_a:8x8x1x1)\nr = Relu(a)\n"
        "q = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(r)\n"
        f"c = Conv<{POINTWISE}>(q, W_c:8x8x1x1)\n",
    ],
)
def test_what_cannot_take_up_a_shift_keeps_its_activations(text):
    last = "e" if "e = " in text else "c"
    more = "" if last == "c" else "c2 = Add(c, e)\n"
    tail = "g = GlobalAveragePool(%s)\nf = Flatten(g)\nout = Gemm<transB=1>(f, W_f:5x8)"
    model = network(text + more + tail % ("c2" if more else "c"))
    images = np.random.default_rng(1).normal(size=(2, 8, 6, 6)).astype(np.float32)
    _, _, shifted, found = centered(model, images)
    assert not found and shifted == model
