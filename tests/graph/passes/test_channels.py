"""Scaling channels: the function stays, and only what commutes with a factor is scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from cnnx import models
from cnnx.graph import edit
from cnnx.graph.export import export_model
from cnnx.graph.passes.channels import Channels, channels_of, scale_channels
from cnnx.graph.simplify import simplify
from cnnx.weights.standin import initialise

NETWORKS: dict[str, dict[str, Any]] = {
    "small_vgg_bn": {},
    "small_googlenet_bn": {},
    "small_mobilenet": {},
    "small_levit": {},
    "cifar_resnet": {"depth": 8},
    "cifar_densenet": {"depth": 13},
    "cifar_preact_resnet": {"depth": 11},
}


def logits_of(model: ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: p[None]})[0] for p in images])


def random_factors(channels: Channels, seed: int) -> NDArray[np.float64]:
    factors = np.exp2(np.random.default_rng(seed).uniform(-6, 6, channels.count))
    factors[0] = 1
    return factors


@pytest.mark.parametrize("name", NETWORKS)
def test_any_factors_leave_the_logits_alone(name: str) -> None:
    network = models.build(name, classes=10, arguments=NETWORKS[name])
    images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    initialise(network, 0, batches=[images])
    model = export_model(network, shape=(3, 32, 32))
    simplify(model)
    before = {t.name: edit.array(t) for t in model.graph.initializer}
    logits = logits_of(model, images)
    channels = channels_of(model)
    scale_channels(model, channels, random_factors(channels, 1))
    assert np.abs(logits_of(model, images) - logits).max() <= 1e-5 * np.abs(logits).max()
    read = {constant for node in model.graph.node for constant in node.input}
    assert all(tensor.name in read for tensor in model.graph.initializer)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    scaled = [
        n
        for n in convolutions
        if not np.array_equal(edit.array(edit.initializers(model.graph)[n.input[1]]), before[n.input[1]])
    ]
    # All but those between LeViT's first Hardswishes.
    stem = {f"stem.conv{n}.linear" for n in (1, 2, 3)} if name == "small_levit" else set()
    assert {n.name for n in convolutions} - {n.name for n in scaled} == stem


def parsed(
    body: str,
    *,
    weights: dict[str, tuple[int, ...]],
    values: dict[str, Any] | None = None,
    entry: str = "1, 4, 6, 6",
) -> ModelProto:
    """input -> output (1, N), with random weights of these shapes."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>'
        f" g (float[{entry}] input) => (float[1, N] output) {{ {body} }}"
    )
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    for name, array in (drawn | (values or {})).items():
        model.graph.initializer.append(edit.tensor_from_array(name, array))
    for position, node in enumerate(model.graph.node):
        node.name = f"n{position}"
    edit.check(model)
    return model


CONV = "a = Conv<pads=[1,1,1,1]>(input, w1, b1)"
HEAD = "p = GlobalAveragePool(z) f = Flatten<axis=1>(p) output = Gemm<transB=1>(f, w2, b2)"
SHAPES: dict[str, tuple[int, ...]] = {"w1": (4, 4, 3, 3), "b1": (4,), "w2": (3, 4), "b2": (3,)}


@pytest.mark.parametrize(
    ("middle", "more", "free"),
    [
        ("z = Relu(a)", {}, 4),
        ("z = HardSwish(a)", {}, 0),
        ("z = Sigmoid(a)", {}, 0),
        ("z = MaxPool<kernel_shape=[3, 3]>(a)", {}, 4),
        ("z = Add(a, input)", {}, 0),  # the input keeps its scale, and ties the convolution to it
        ("r = Relu(a) z = Add(a, r)", {}, 4),
        ("c = Conv(a, w3) r = Relu(a) z = Add(c, r)", {"w3": (4, 4, 1, 1)}, 4),
        ("c = Conv<group=4>(a, w3) z = Relu(c)", {"w3": (4, 1, 3, 3)}, 8),
        ("c = Conv<group=2>(a, w3) z = Relu(c)", {"w3": (4, 2, 3, 3)}, 8),
        ("c = Conv(a, w3) d = Conv(c, w3) z = Relu(d)", {"w3": (4, 4, 1, 1)}, 12),  # one weight, two readers
        ("z = Mul(a, a)", {}, 0),
        ("z = MatMul(a, w3)", {"w3": (6, 6)}, 0),  # along the width
        ("z = Concat<axis=2>(a, a)", {}, 0),
        ("d = Neg(w3) z = Conv(a, d)", {"w3": (4, 4, 1, 1)}, 0),  # weights and biases that are computed
        ("d = Neg(b3) z = Conv(a, w3, d)", {"w3": (4, 4, 1, 1), "b3": (4,)}, 0),
        ("d = Abs(b3) z = BatchNormalization(a, d, b3, b3, d)", {"b3": (4,)}, 0),
        ("z = Relu(a)", {"b2": (1, 3)}, 0),  # a bias that is no vector
        ("z = Add(a, v)", {"v": (4, 1, 1)}, 0),
    ],
)
def test_only_what_commutes_with_a_factor_is_scaled(
    middle: str, more: dict[str, tuple[int, ...]], free: int
) -> None:
    model = parsed(f"{CONV} {middle} {HEAD}", weights={**SHAPES, **more})
    channels = channels_of(model)
    assert len(set(np.concatenate(list(channels.groups.values())).tolist()) - {0}) == free
    images = np.random.default_rng(3).normal(size=(2, 4, 6, 6)).astype(np.float32)
    logits = logits_of(model, images)
    scale_channels(model, channels, random_factors(channels, 2))
    np.testing.assert_allclose(logits_of(model, images), logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max())


def test_a_concatenation_hands_its_parts_channels_on_and_flattening_repeats_them() -> None:
    body = (
        f"{CONV} c = Conv(a, w3) r = Relu(a) j = Concat<axis=1>(r, c) f = Flatten<axis=1>(j)"
        " output = MatMul(f, w4)"
    )
    model = parsed(body, weights={"w1": (4, 4, 3, 3), "b1": (4,), "w3": (2, 4, 1, 1), "w4": (216, 3)})
    groups = channels_of(model).groups
    assert groups["j"].tolist() == [*groups["a"], *groups["c"]]
    assert groups["f"].tolist() == np.repeat(groups["j"], 36).tolist()
    assert set(groups["output"]) == {0}


def test_padding_that_takes_channels_away_fixes_them() -> None:
    body = f"{CONV} z = Pad(a, pads) p = GlobalAveragePool(z) f = Flatten<axis=1>(p) output = MatMul(f, w2)"
    values = {"pads": np.array([0, -1, 0, 0, 0, 0, 0, 0])}
    groups = channels_of(parsed(body, weights={**SHAPES, "w2": (3, 3)}, values=values)).groups
    assert set(groups["a"]) == set(groups["z"]) == {0}


def test_flattening_from_another_axis_fixes_its_channels() -> None:
    body = f"{CONV} f = Flatten<axis=2>(a) m = MatMul(f, w4) output = ReduceMean(m, first)"
    model = parsed(body, weights={**SHAPES, "w4": (36, 3)}, values={"first": np.array([0])})
    groups = channels_of(model).groups
    assert set(groups["a"]) == set(groups["f"]) == {0}


@pytest.mark.parametrize(
    ("how", "value", "free"),
    [
        ("Pad(a, pads, v)", 0, 6),
        ("Pad(a, pads)", 0, 6),
        ("Pad(a, pads, v)", 1, 0),
        ('Pad<mode="wrap">(a, pads, v)', 0, 0),
        ("Pad(a, pads, v, axes)", 0, 0),
        ("Pad(a, pads, computed)", 0, 0),
    ],
)
def test_padding_by_zeros_adds_free_channels_by_other_values_fixes_all(
    how: str, value: int, free: int
) -> None:
    tail = "p = GlobalAveragePool(z) f = Flatten<axis=1>(p) output = MatMul(f, w2)"
    body = f"{CONV} computed = Neg(v) z = {how} {tail}"
    values = {
        "pads": np.array([0, 0, 0, 0, 0, 2, 0, 0]), "v": np.float32(value), "axes": np.arange(4)
    }  # fmt: skip
    model = parsed(body, weights={**SHAPES, "w2": (6, 3)}, values=values)
    groups = channels_of(model).groups
    assert len(set(groups["z"].tolist()) - {0}) == free


def test_axis_1_of_tokens_is_no_channel() -> None:
    """(N, tokens, features) through a matrix product: what it is scaled by would be another axis."""
    body = (
        "a = Conv(input, w1, b1) t = Reshape(a, shape) m = MatMul(t, w3) f = Flatten<axis=1>(m) "
        "output = MatMul(f, w4)"
    )
    weights = {"w1": (4, 4, 1, 1), "b1": (4,), "w3": (4, 5), "w4": (180, 3)}
    model = parsed(body, weights=weights, values={"shape": np.array([1, 36, 4])})
    channels = channels_of(model)
    assert channels.layers == {"a", "output"} and channels.count == 1
    before = model.SerializeToString()
    scale_channels(model, channels, np.ones(1))
    assert model.SerializeToString() == before


def test_what_is_read_but_was_never_made_is_not_scaled_even_where_its_channels_are_not_known() -> None:
    names = ["s", "b", "m", "v"]
    body = f"q = Pad(input, pads) n = BatchNormalization(q, {', '.join(names)}) z = Relu(n) {HEAD}"
    values = {name: np.full(4, 0.5, np.float32) for name in names}
    values["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    model = parsed(body, weights={"w2": (3, 4), "b2": (3,)}, values=values, entry="1, C, 6, 6")
    channels = channels_of(model)
    assert "input" not in channels.groups and set(channels.groups["q"]) == {0}
    assert len(channels.groups["n"]) == 4 and "n" in channels.layers


def test_a_concatenation_with_the_input_leaves_its_other_parts_free() -> None:
    body = f"r = Relu(input) {CONV.replace('(input', '(r')} z = Concat<axis=1>(a, input) {HEAD}"
    groups = channels_of(parsed(body, weights={**SHAPES, "w2": (3, 8)})).groups
    assert set(groups["input"]) == {0} and len(set(groups["z"]) - {0}) == 4
