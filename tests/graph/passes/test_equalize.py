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
