"""Weights that read images are rounded together, so that their errors cancel on smooth images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnnx.graph.passes.qdq import quantize_weight
from cnnx.graph.passes.rounding import round_for_smooth_images, smooth_correlation


def quantized(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    return quantize_weight(weight, axis=0, scales="fp32")


def responses(weight: NDArray[np.float64], images: NDArray[np.float64]) -> NDArray[np.float64]:
    patches = np.lib.stride_tricks.sliding_window_view(images, weight.shape[2:], axis=(2, 3))
    return np.einsum("ncyxhw,ochw->noyx", patches, weight)


def smooth_images() -> NDArray[np.float64]:
    """Waves of a few periods, with nearly equal colors and fine noise: not the model that rounding uses."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    waves = [np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in random.uniform(-2, 2, (12, 3))]
    gray = np.stack(waves)[:, None]
    return gray * random.uniform(0.8, 1.2, (12, 3, 1, 1)) + 0.02 * random.standard_normal((12, 3, 32, 32))


def test_the_response_to_smooth_images_gains_more_than_a_bit() -> None:
    weight = np.random.default_rng(1).standard_normal((16, 3, 3, 3)).astype(np.float32)
    nearest, scale = quantized(weight)
    images, steps = smooth_images(), scale[:, None, None, None]
    errors = [
        np.square(responses(integers * steps - weight, images)).mean()
        for integers in (nearest, round_for_smooth_images(weight, nearest, scale))
    ]
    assert errors[1] < 0.2 * errors[0]


SIDE = st.integers(1, 5)


@given(st.integers(1, 4), SIDE, SIDE, st.integers(0, 1000))
def test_no_weight_moves_far_and_no_channel_gets_worse(
    channels: int, height: int, width: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((5, channels, height, width)).astype(np.float32)
    weight[0] = 0  # a dead channel
    weight[1] *= 1e-6
    nearest, scale = quantized(weight)
    found = round_for_smooth_images(weight, nearest, scale)
    assert found.dtype == np.int8 and found.shape == weight.shape
    assert np.abs(found.astype(int)).max() <= 127 and not found[0].any()
    correlation = smooth_correlation(channels, height, width)

    def error(integers: NDArray[np.int8]) -> NDArray[np.float64]:
        off = (integers * scale[:, None, None, None].astype(float) - weight).reshape(5, -1)
        return np.einsum("oi,ij,oj->o", off, correlation, off)

    assert (error(found) <= error(nearest) * (1 + 1e-9) + 1e-30).all()
    again = round_for_smooth_images(weight, found, scale)
    assert (again == found).all()  # nothing is left to gain by one step


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 3), (3, 7, 7)])
def test_the_model_of_images_is_a_correlation(shape: tuple[int, int, int]) -> None:
    correlation = smooth_correlation(*shape)
    assert np.allclose(correlation, correlation.T) and np.allclose(np.diag(correlation), 1)
    assert np.linalg.eigvalsh(correlation).min() > 0
