"""Crops and normalization compared with stored pixels and values; see golden/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cnnx.data.geometry import crop, offset, resized
from cnnx.data.images import ImageFile
from cnnx.data.normalize import normalize
from cnnx.errors import ImageError, MissingExtra
from cnnx.preprocessing import Preprocessing

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
    preprocessing = Preprocessing(interpolation=interpolation, resize=int(resize))
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


SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, st.integers(1, 500), st.integers(1, 500))
def test_fits_keep_what_their_names_promise(width, height, high, wide):
    def size(fit: str, resize: object) -> tuple[int, int]:
        return resized(width, height, Preprocessing(fit=fit, resize=resize))

    assert min(size("shorter", high)) == high
    assert max(size("longer", high)) == high
    assert size("squash", (high, wide)) == (wide, high)
    assert size("none", None) == (width, height)
    covers, fits = size("shorter", (high, wide)), size("letterbox", (high, wide))
    assert covers[0] >= wide and covers[1] >= high and (covers[0] == wide or covers[1] == high)
    assert fits[0] <= wide and fits[1] <= high and (fits[0] == wide or fits[1] == high)
    assert min(fits) >= 1


@given(SIDES, SIDES)
def test_crop_and_padding_are_centered_to_half_a_pixel(length, wanted):
    start = offset(length, wanted)
    assert abs((length - wanted) / 2 - start) <= 0.5


def test_bgr_is_rgb_with_its_channels_reversed():
    image = ImageFile("landscape", GOLDEN / "landscape.png").load()
    rgb, bgr = (crop(image, Preprocessing(color=color), (3, 224, 224)) for color in ("rgb", "bgr"))
    assert np.array_equal(rgb[..., ::-1], bgr)


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (41, 20)])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_letterbox_pads_around_the_whole_image(width, height, color):
    """Fill is in the order of the network's channels, so it does not depend on the color."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    made = crop(
        image, Preprocessing(color=color, fit="letterbox", resize=(32, 32), fill=(9, 8, 7)), (3, 32, 32)
    )
    red = [255, 0, 0] if color == "rgb" else [0, 0, 255]
    assert made[16, 16].tolist() == red
    short = round(32 * min(width, height) / max(width, height))
    before = (32 - short) // 2
    line = made[:, 16] if width > height else made[16]
    padded = [row.tolist() == [9, 8, 7] for row in line]
    assert padded == [True] * before + [False] * short + [True] * (32 - before - short)


def test_without_a_resize_a_large_image_is_cropped_and_a_small_one_padded():
    pixels = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    at = Preprocessing(fit="none", resize=None)
    assert np.array_equal(crop(Image.fromarray(pixels), at, (3, 6, 4)), pixels[3:9, 3:7])
    made = crop(Image.fromarray(pixels), at, (3, 14, 4))
    assert np.array_equal(made[1:13], pixels[:, 3:7]) and not made[0].any() and not made[13].any()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", [True, False])
def test_orientation_is_applied_only_if_asked_for(suffix, exif, tmp_path):
    image = Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (0, 0, 32, 32))  # the left half is white
    tags = Image.Exif()
    tags[0x0112] = 6  # rotate by 90 degrees clockwise to view: the left half becomes the upper one
    image.save(tmp_path / f"x.{suffix}", exif=tags)
    at = Preprocessing(fit="squash", resize=(32, 32), exif=exif)
    made = crop(ImageFile("x", tmp_path / f"x.{suffix}").load(), at, (3, 32, 32))
    assert (made[4, 28, 0] > 128, made[28, 4, 0] > 128) == ((True, False) if exif else (False, True))


def test_a_damaged_orientation_is_an_image_that_cannot_be_used(monkeypatch):
    def damaged(image: Image.Image) -> Image.Image:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", damaged)
    at = Preprocessing(resize=32, exif=True)
    with pytest.raises(ImageError, match="EXIF data that cannot be read: not a TIFF file"):
        crop(Image.new("RGB", (64, 64)), at, (3, 32, 32))


def test_opencv_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="opencv") as caught:
        crop(Image.new("RGB", (64, 64)), Preprocessing(resize=32, resampling="opencv"), (3, 32, 32))
    assert "[opencv]" in caught.value.hint
