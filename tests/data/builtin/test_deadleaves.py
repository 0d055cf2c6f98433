from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cnnx.data.builtin.deadleaves import render
from cnnx.data.sets import open_images

SIDE = 128


@pytest.fixture(scope="module")
def gray() -> NDArray[np.float64]:
    images = open_images("deadleaves", size=SIDE, color="gray", split="calibration")
    return np.stack([np.asarray(images[index].load(), float) for index in range(32)])


def test_the_power_spectrum_falls_as_that_of_natural_images(gray: NDArray[np.float64]) -> None:
    """Photographs: about f^-2 (Field, JOSA A 4, 1987; Ruderman and Bialek, PRL 73, 1994)."""
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    centred = (gray - gray.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(axis=0)
    cycles = np.fft.fftfreq(SIDE) * SIDE
    radius = np.rint(np.hypot(cycles[:, None], cycles[None, :])).astype(int)
    rings = np.arange(3, SIDE // 2 - 8)
    radial = [power[radius == ring].mean() for ring in rings]
    slope = np.polyfit(np.log(rings), np.log(radial), 1)[0]
    assert -2.5 < slope < -1.7


def test_edges_are_rare_and_strong_as_in_natural_images(gray: NDArray[np.float64]) -> None:
    steps = np.diff(gray, axis=2).ravel()
    kurtosis = np.mean(steps**4) / np.mean(steps**2) ** 2
    assert kurtosis > 6  # 3 for noise; much higher for photographs


def test_exposure_varies_about_a_middle_tone(gray: NDArray[np.float64]) -> None:
    means = gray.mean(axis=(1, 2)) / 255
    assert 0.3 < means.mean() < 0.55
    assert 0.05 < means.std() < 0.2
    assert 0.15 < gray.std() / 255 < 0.3


def test_a_seed_has_one_image_at_every_size() -> None:
    small, large = render((7,), 64), render((7,), 192)
    assert small.shape == (64, 64, 3)
    assert np.array_equal(small, render((7,), 64))
    reduced = large.reshape(64, 3, 64, 3, 3).mean(axis=(1, 3))
    assert np.corrcoef(reduced.ravel(), small.ravel())[0, 1] > 0.6
    assert np.corrcoef(render((8,), 64).ravel(), small.ravel())[0, 1] < 0.4


def test_digest_names_all_that_the_pixels_follow_from() -> None:
    digests = {
        open_images("deadleaves", size=size, color=color, split=split)[index].digest()  # type: ignore[arg-type]
        for size in (8, 9)
        for color in ("rgb", "gray")
        for split in ("calibration", "validation")
        for index in (0, 1)
    }
    assert len(digests) == 16
