"""Converts an image to a crop: color mode, resize, center crop.

The geometry is that of torchvision's `Resize` and `CenterCrop`, with which the published accuracies of
classic networks were measured. Resampling is Pillow's, with antialiasing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnx.data.images import MAX_PIXELS
from cnnx.errors import ImageError
from cnnx.recipe import Preprocessing

_MODES = {"rgb": "RGB", "gray": "L"}
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


def resized(width: int, height: int, resize: int) -> tuple[int, int]:
    """Return width and height with the shorter side scaled to `resize`; the other is truncated."""
    short, long = sorted((width, height))
    other = int(resize * long / short)
    return (resize, other) if width <= height else (other, resize)


def offset(length: int, crop: int) -> int:
    """Return the start of the center crop; halves round to the even neighbour, as in torchvision."""
    return round((length - crop) / 2.0)


def crop(image: Image.Image, preprocessing: Preprocessing, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Convert, resize and center-crop one image.

    Alpha is dropped, not blended, as in torchvision. Samples of more than 8 bits are refused because Pillow
    would clip them at 255 instead of scaling them.

    Args:
        image: an image of any size and 8-bit mode.
        preprocessing: color mode, resize and interpolation.
        shape: channels, height, width of the crop; height and width are at most `resize`.

    Returns:
        The pixels, (height, width, channels).

    Raises:
        ImageError: the image has more than 8 bits per sample, or would be too large when resized.
    """
    if image.mode[0] in "IF":
        raise ImageError("has samples of more than 8 bits", hint="convert it to 8 bits per channel")
    width, height = resized(*image.size, preprocessing.resize)
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the resized image would be too large: {width} x {height} pixels, more than {MAX_PIXELS:,}",
            hint="crop its longer side, or leave the image out",
        )
    image = image.convert(_MODES[preprocessing.color])
    image = image.resize((width, height), _FILTERS[preprocessing.interpolation])
    channels, high, wide = shape
    left, top = offset(width, wide), offset(height, high)
    middle = image.crop((left, top, left + wide, top + high))
    return np.asarray(middle, np.uint8).reshape(high, wide, channels)
