"""Equalization: the same function, and nothing left of how a network's channels were scaled before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto

from cnnx.graph import edit
from cnnx.graph.passes.channels import channels_of, scale_channels
from cnnx.graph.passes.equalize import LARGEST, equalize
from cnnx.graph.passes.observe import MAXIMA, observed_model
from tests.inputs.graphs import GRAPHS, Sketch, images, run


def channel_maxima(model: ModelProto, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    observed = observed_model(model)
    found = run(observed.model, x)[MAXIMA]
    return {name: found[place] for name, place in observed.channels.items()}


def equalized(model: ModelProto, x: NDArray[np.float32]) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    equalize(copy, channel_maxima(model, x))
    return copy


def constants_of(model: ModelProto) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: edit.array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_function_stays(name: str) -> None:
    model, x = GRAPHS[name](), images()
    before = run(model, x)["logits"]
    after = run(equalized(model, x), x)["logits"]
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()


@pytest.mark.parametrize("name", GRAPHS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_how_channels_were_scaled_before_makes_no_difference(name: str, seed: int) -> None:
    model, x = GRAPHS[name](), images()
    twin = ModelProto()
    twin.CopyFrom(model)
    channels = channels_of(twin)
    factors = np.exp2(np.random.default_rng(seed).uniform(-8, 8, channels.count))
    factors[0] = 1
    scale_channels(twin, channels, factors)
    one, other = constants_of(equalized(model, x)), constants_of(equalized(twin, x))
    for constant, values in one.items():
        np.testing.assert_allclose(other[constant], values, rtol=1e-4, atol=1e-6, err_msg=constant)


def test_no_place_leaves_fp16() -> None:
    model, x = GRAPHS["plain"](), images()
    channels = channels_of(model)
    factors = np.full(channels.count, 1e6)
    factors[0] = 1
    scale_channels(model, channels, factors)
    maxima = channel_maxima(equalized(model, x), x)
    assert max(maxima[name].max() for name, g in channels.groups.items() if g.all()) == pytest.approx(
        LARGEST, rel=1e-5
    )


def test_a_dead_channel_does_not_set_its_readers_scales() -> None:
    """A ReLU that never fired in calibration may have any weights behind it."""
    model, x = GRAPHS["plain"](), images()
    constants = edit.initializers(model.graph)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    bias = edit.array(constants[convolutions[0].input[2]]).copy()
    bias[1] = -1e3
    constants[convolutions[0].input[2]].CopyFrom(edit.tensor_from_array(convolutions[0].input[2], bias))
    weight = edit.array(constants[convolutions[1].input[1]]).copy()
    weight[:, 1] *= 1e4
    constants[convolutions[1].input[1]].CopyFrom(edit.tensor_from_array(convolutions[1].input[1], weight))
    after = constants_of(equalized(model, x))[convolutions[1].input[1]]
    largest = np.abs(after).max(axis=(0, 2, 3))
    assert largest[1] <= largest.max() and largest.max() < 20 * np.median(largest)
    assert np.isfinite(after).all()


def test_a_channel_that_no_weight_reads_becomes_as_large_as_the_others_are_in_the_middle() -> None:
    model, x = GRAPHS["plain"](), images()
    constants = edit.initializers(model.graph)
    readers = [node for node in model.graph.node if node.op_type == "Conv"][1]
    weight = edit.array(constants[readers.input[1]]).copy()
    weight[:, 3] = 0
    constants[readers.input[1]].CopyFrom(edit.tensor_from_array(readers.input[1], weight))
    ranges = channel_maxima(equalized(model, x), x)["relu1"]
    assert ranges[3] == pytest.approx(np.median(np.delete(ranges, 3)), rel=1e-4)
    assert ranges.max() == pytest.approx(LARGEST, rel=1e-5)


def two_concatenations() -> ModelProto:
    """a, b and c, where b is read beside a and beside c, so that all three scale together."""
    s = Sketch(seed=4)
    a, b, c = (s.node("Relu", [s.conv("input", f"conv.{name}", 3, 8)], name) for name in "abc")
    joined = [s.node("Concat", [*pair], name, axis=1) for pair, name in (((b, c), "bc"), ((a, b), "ab"))]
    read = [s.conv(x, f"read.{x}", 16, 16, kernel=1) for x in joined]
    return s.classify(s.node("GlobalAveragePool", [s.node("Add", read, "sum")], "gap"), 16)


def test_activations_and_the_weights_that_read_them_are_balanced_in_all_that_scales_together() -> None:
    """Where each range is the geometric mean of its two values, their quotient is that of all the others."""
    x = images()
    model = equalized(two_concatenations(), x)
    constants, maxima = constants_of(model), channel_maxima(model, x)
    shares: dict[str, NDArray[np.float32]] = {}
    for pair in ("bc", "ab"):
        largest = np.abs(constants[f"read.{pair}.weight"]) / maxima[f"read.{pair}"][:, None, None, None]
        for name, part in zip(pair, np.split(largest.max(axis=(0, 2, 3)), 2), strict=True):
            shares[name] = np.maximum(part, shares.get(name, 0))
    quotients = np.concatenate([maxima[name] / shares[name] for name in "abc"])
    np.testing.assert_allclose(quotients, quotients[0], rtol=1e-4)


def test_what_is_beside_fixed_channels_sets_the_target_of_all_that_scales_with_it() -> None:
    """a is read beside fixed channels, and beside b, which scales with it."""
    s = Sketch(seed=8)
    fixed = s.node("Sigmoid", [s.conv("input", "gate", 3, 8)], "fixed")
    a, b = (s.node("Relu", [s.conv("input", f"conv.{name}", 3, 8)], name) for name in "ab")
    joined = [s.node("Concat", [*pair], name, axis=1) for pair, name in (((fixed, a), "fa"), ((a, b), "ab"))]
    read = [s.conv(x, f"read.{x}", 16, 16, kernel=1) for x in joined]
    model = s.classify(s.node("GlobalAveragePool", [s.node("Add", read, "sum")], "gap"), 16)
    x = images()
    found = channel_maxima(equalized(model, x), x)
    assert found["ab"].max() == pytest.approx(found["fixed"].max(), rel=1e-4)


def test_what_does_not_scale_together_has_targets_of_its_own() -> None:
    """Two concatenations, each with fixed channels of another size."""
    s = Sketch(seed=8)
    gate = s.node("Sigmoid", [s.conv("input", "gate", 3, 8)], "gate.1")
    read = []
    for name, size in (("a", 1), ("b", 100)):
        fixed = s.node(
            "Mul",
            [gate, s.constant(f"{name}.size", np.full((1, 8, 1, 1), size, np.float32))],
            f"{name}.fixed",
        )
        free = s.node("Relu", [s.conv("input", f"{name}.conv", 3, 8)], name)
        read.append(s.conv(s.node("Concat", [fixed, free], f"{name}.joined", axis=1), f"{name}.read", 16, 16))
    model, x = s.classify(s.node("GlobalAveragePool", [s.node("Add", read, "sum")], "gap"), 16), images()
    found = channel_maxima(equalized(model, x), x)
    for name in "ab":
        assert found[name].max() == pytest.approx(found[f"{name}.fixed"].max(), rel=1e-4), name


def test_a_channel_that_is_dead_and_not_read_stays() -> None:
    model, x = GRAPHS["plain"](), images()
    constants = edit.initializers(model.graph)
    first, second = [node for node in model.graph.node if node.op_type == "Conv"]
    for name, place, value in ((first.input[2], 1, -1e3), (second.input[1], (slice(None), 1), 0)):
        values = edit.array(constants[name]).copy()
        values[place] = value
        constants[name].CopyFrom(edit.tensor_from_array(name, values))
    after = equalized(model, x)
    assert np.isfinite(np.concatenate([each.ravel() for each in constants_of(after).values()])).all()
    np.testing.assert_allclose(run(after, x)["logits"], run(model, x)["logits"], rtol=1e-4, atol=1e-5)


def test_a_sum_with_channels_that_nothing_tells_is_left_alone() -> None:
    s = Sketch(seed=9)
    turned = s.node("Transpose", [s.node("Sigmoid", ["input"], "gate")], "turned", perm=[0, 1, 3, 2])
    for order in ([turned, s.conv("input", "conv", 3, 3)], [s.conv("input", "conv2", 3, 3), turned]):
        turned = s.node("Add", order, f"sum{len(s.nodes)}")
    model, x = s.classify(s.node("GlobalAveragePool", [turned], "gap"), 3), images()
    after = run(equalized(model, x), x)["logits"]
    np.testing.assert_allclose(after, run(model, x)["logits"], rtol=1e-4, atol=1e-5)


def test_a_perceptron_whose_input_is_flattened_first_is_equalized() -> None:
    s = Sketch(seed=6)
    flat = s.node("Flatten", ["input"], "flat")
    hidden = s.node("Gemm", [flat, s.weight("hidden.weight", 16, 432)], "hidden", transB=1)
    model, x = s.classify(s.node("Relu", [hidden], "relu"), 16), images()
    after = equalized(model, x)
    assert channel_maxima(after, x)["relu"].max() == pytest.approx(LARGEST, rel=1e-5)
    np.testing.assert_allclose(run(after, x)["logits"], run(model, x)["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1 / 512, 1, 512])
def test_channels_are_as_large_as_those_beside_them_that_cannot_be_scaled(scale: float) -> None:
    """Res2Net concatenates channels that a Split fixes with ones that can be scaled."""
    s = Sketch(seed=5)
    fixed = s.node("Sigmoid", [s.conv("input", "gate", 3, 8)], "fixed")
    free = s.node("Relu", [s.conv("input", "free", 3, 8)], "free_relu")
    joined = s.node("Concat", [fixed, free], "joined", axis=1)
    x = s.node("Relu", [s.conv(joined, "next", 16, 8)], "relu")
    model = s.classify(s.node("GlobalAveragePool", [x], "gap"), 8)
    channels = channels_of(model)
    factors = np.full(channels.count, scale)
    factors[0] = 1
    scale_channels(model, channels, factors)
    found = channel_maxima(equalized(model, images()), images())["joined"]
    assert found[8:].max() == pytest.approx(found[:8].max(), rel=1e-4)
