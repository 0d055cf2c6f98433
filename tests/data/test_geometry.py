"""Crops and normalization compared with stored pixels and values; see golden/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnx.data.geometry import crop
from cnnx.data.images import ImageFile
from cnnx.data.normalize import normalize
from cnnx.recipe import Preprocessing

GOLDEN = Path(__file__).parent / "golden"

# Image, rule, size after the resize, corner of the crop. Cases with a tie or a fraction:
# portrait at 256: 256 * 481 / 333 = 369.77 high, (369 - 224) / 2 = 72.5 from the top
# landscape at 256: (341 - 224) / 2 = 58.5 from the left
# portrait at 232: (335 - 224) / 2 = 55.5 from the top, where the even neighbour is above
# landscape at 342: (456 - 299) / 2 = 78.5 from the left, (342 - 299) / 2 = 21.5 from the top
# landscape at 341: 341 * 500 / 375 = 454.67 wide, (454 - 299) / 2 = 77.5 from the left
# palette at 256: 256 * 120 / 97 = 316.70 wide, enlarged, its transparency dropped
# gray at 248: 248 * 399 / 301 = 328.74 high
CASES = [
    ("portrait", "bilinear-256-224", (256, 369), (16, 72)),
    ("landscape", "bilinear-256-224", (341, 256), (58, 16)),
    ("palette", "bilinear-256-224", (316, 256), (46, 16)),
    ("portrait", "bilinear-232-224", (232, 335), (4, 56)),
    ("landscape", "bilinear-342-299", (456, 342), (78, 22)),
    ("landscape", "bicubic-341-299", (454, 341), (78, 21)),
    ("gray", "bicubic-248-224", (248, 328), (12, 52)),
]
cases = pytest.mark.parametrize(
    ("name", "rule", "size", "corner"), CASES, ids=[f"{name}-{rule}" for name, rule, *_ in CASES]
)
# Pillow warns that the transparency of palette.png is lost. torchvision drops it as well.
pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")


def stored(name: str, rule: str) -> NDArray[np.uint8]:
    with Image.open(GOLDEN / f"{name}-{rule}.png") as image:
        return np.asarray(image)


@cases
def test_crops_equal_the_stored_ones(name: str, rule: str, size: object, corner: object) -> None:
    """Crops are equal to the last bit.

    Pillow resamples 8-bit pixels in integers, with weights rounded from the same doubles on every machine.
    """
    interpolation, resize, side = rule.split("-")
    preprocessing = Preprocessing(interpolation=interpolation, resize=int(resize))  # type: ignore[arg-type]
    made = crop(ImageFile(name, GOLDEN / f"{name}.png").load(), preprocessing, (3, int(side), int(side)))
    assert np.array_equal(made, stored(name, rule))


@cases
def test_the_stored_crops_tell_every_rounding_apart(
    name: str, rule: str, size: tuple[int, int], corner: tuple[int, int]
) -> None:
    """The stored crops match only this size and corner, so a deviation of one pixel would fail above."""
    interpolation, _, side = rule.split("-")
    with Image.open(GOLDEN / f"{name}.png") as file:
        image = file.convert("RGB")

    def taken(width: int, height: int, left: int, top: int) -> NDArray[np.uint8]:
        resized = image.resize((width, height), Image.Resampling[interpolation.upper()])
        return np.asarray(resized)[top : top + int(side), left : left + int(side)]

    right = (*size, *corner)
    assert np.array_equal(taken(*right), stored(name, rule))
    for axis in range(4):
        for step in (-1, 1):
            wrong = [value + step * (index == axis) for index, value in enumerate(right)]
            assert not np.array_equal(taken(*wrong), stored(name, rule)), wrong


@pytest.mark.parametrize(
    ("mean", "std", "pixel", "expected"),
    [
        # ImageNet's: -0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225, and (1 - mean) / std
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (0, 0, 0), (-2.1179039, -2.0357143, -1.8044444)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (255, 255, 255), (2.2489083, 2.4285714, 2.64)),
        # 51 / 255 = 0.2, 102 / 255 = 0.4, 204 / 255 = 0.8: each channel has its own mean and deviation
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (51, 102, 204), (-1.2445415, -0.25, 1.7511111)),
        # Inception's: -1 to 1
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (0, 51, 255), (-1.0, -0.6, 1.0)),
        ((0.5,), (0.5,), (204,), (0.6,)),
    ],
)
def test_normalised_values(
    mean: tuple[float, ...], std: tuple[float, ...], pixel: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    crops = np.array(pixel, np.uint8).reshape(1, 1, 1, -1)
    values = normalize(crops, Preprocessing(mean=mean, std=std))
    np.testing.assert_allclose(values, np.reshape(expected, (1, -1, 1, 1)), rtol=0, atol=1e-6)
