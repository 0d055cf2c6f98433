"""Signal-to-noise ratio along a network: sums are right in any split, and only a fall that stays is one."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from cnnx.quant.noise import Compared, Noise, decibels, fake_quantized, falls, own_noise


def noise_of(reference: np.ndarray, values: np.ndarray, parts: int = 1) -> Noise:
    noise = Noise()
    for one, other in zip(np.array_split(reference, parts), np.array_split(values, parts), strict=True):
        noise.add(one, other)
    return noise


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(1e-4, 10))
def test_any_split_gives_the_ratio_of_the_whole(seed: int, parts: int, level: float) -> None:
    random = np.random.default_rng(seed)
    reference, error = random.normal(size=(2, 40, 3)).astype(np.float32)
    found = noise_of(reference, reference + np.float32(level) * error, parts)
    exact = (reference + np.float32(level) * error).astype(np.float64) - reference
    ratio = (exact**2).sum() / (reference.astype(np.float64) ** 2).sum()
    assert found.ratio == pytest.approx(ratio, rel=1e-9)
    assert found.db == pytest.approx(-10 * math.log10(ratio))


def test_what_has_no_noise_no_signal_or_no_finite_value() -> None:
    ones = np.ones((4, 4), np.float16)
    assert noise_of(ones, ones).db is None and noise_of(ones, ones).gain is None
    assert (noise_of(0 * ones, ones).db, noise_of(0 * ones, 0 * ones).db) == (-math.inf, None)
    broken = noise_of(ones, np.where(np.eye(4), np.nan, ones))
    assert (broken.ratio, broken.db, broken.gain) == (math.inf, -math.inf, None)
    assert (decibels(0.01), decibels(1.0), decibels(0.0)) == (20.0, 0.0, None)


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.9, 1.2, 4.0, 16.0])
def test_a_factor_is_told_from_noise(factor: float) -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(100, 10)).astype(np.float32)
    rounded = reference + random.normal(size=reference.shape).astype(np.float32) / 1000
    assert noise_of(reference, factor * rounded).gain == pytest.approx(factor, rel=1e-3)
    assert noise_of(reference, rounded).gain is None
    assert noise_of(reference, random.normal(size=reference.shape)).gain is None


def test_fake_quantization_is_that_of_onnx() -> None:
    values = np.concatenate([np.linspace(-3, 3, 501), [0.25, 0.75, -0.25, 1e3, -1e3]]).astype(np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, 1, [len(values)]) for name in "xy")
    constants = [
        onnx.numpy_helper.from_array(np.float32(0.015625), "s"),
        onnx.numpy_helper.from_array(np.int8(0), "z"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    [expected] = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": values})
    np.testing.assert_array_equal(fake_quantized(values, 0.015625), expected)


def chain(*ratios: tuple[float, float]) -> dict[str, Compared]:
    """A chain of tensors: measured and expected noise of each."""
    names = [chr(ord("a") + place) for place in range(len(ratios))]
    before = [(), *((name,) for name in names)]
    return {
        name: Compared(previous, *ratio) for name, previous, ratio in zip(names, before, ratios, strict=False)
    }


SOUND, BAD = (1.1e-3, 1e-3), (0.3, 1e-3)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([SOUND, SOUND, SOUND], ()),
        ([SOUND, BAD, BAD], ("b", "c")),
        # Only averaged noise is left of it.
        ([SOUND, BAD, (1.3e-3, 1e-3)], ("b",)),
        # Noise does not go away: this was taken for another tensor.
        ([SOUND, BAD, SOUND], ()),
        ([SOUND, SOUND, BAD], ("c",)),
        # FP16 arithmetic, and values that are not finite.
        ([(1e-6, 1e-9), (2e-5, 1e-8)], ()),
        ([(math.inf, 1e-3), (math.inf, 1e-3)], ("a", "b")),
        ([(0.0, 0.0), (1e-3, 0.0)], ("b",)),
    ],
)
def test_a_fall_is_clear_and_stays(ratios: list[tuple[float, float]], expected: tuple[str, ...]) -> None:
    assert falls(chain(*ratios)) == expected


def test_a_branch_confirms_what_another_does_not() -> None:
    compared = {
        "a": Compared((), *BAD),
        "b": Compared(("a",), *SOUND),
        "c": Compared(("a",), *BAD),
        "d": Compared(("b", "c"), *BAD),
    }
    assert falls(compared) == ("a", "c", "d")
    assert own_noise(compared) == {"a": 1e-3, "b": 0.0, "c": 0.0, "d": 0.0}
    assert own_noise(chain((0, 1e-3), (0, 3e-3), (0, 2e-3))) == {"a": 1e-3, "b": 2e-3, "c": 0.0}
