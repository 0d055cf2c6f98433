"""From a picture to a crop: color, resize, middle.

The geometry is torchvision's (`Resize`, then `CenterCrop`), under which the published accuracies of
classic networks were taken, on Pillow's antialiased resampling.
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
    """Width and height with the shorter side brought to `resize`; the other is truncated, not rounded."""
    short, long = sorted((width, height))
    other = int(resize * long / short)
    return (resize, other) if width <= height else (other, resize)


def offset(length: int, crop: int) -> int:
    """Where the middle `crop` of `length` begins; halves go to the even neighbour, as in torchvision."""
    return round((length - crop) / 2.0)


def crop(
    picture: Image.Image, preprocessing: Preprocessing, shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Color, resize and middle of one picture.

    Alpha is dropped, not blended, as torchvision does. Samples of more than 8 bits are refused: Pillow
    would clip them at 255 rather than scale them.

    Args:
        picture: of any size and 8-bit mode.
        preprocessing: gives color, resize and interpolation.
        shape: channels, height, width of the crop; at most `resize` high and wide.

    Returns:
        (height, width, channels).

    Raises:
        ImageError: the picture has deep samples, or is too long and thin to be resized.
    """
    if picture.mode[0] in "IF":
        raise ImageError("has samples of more than 8 bits", mend="convert it to 8 bits a channel")
    width, height = resized(*picture.size, preprocessing.resize)
    if width * height > MAX_PIXELS:
        raise ImageError(f"would be {width} x {height} pixels when resized, more than {MAX_PIXELS:,}")
    picture = picture.convert(_MODES[preprocessing.color])
    picture = picture.resize((width, height), _FILTERS[preprocessing.interpolation])
    channels, high, wide = shape
    left, top = offset(width, wide), offset(height, high)
    middle = picture.crop((left, top, left + wide, top + high))
    return np.asarray(middle, np.uint8).reshape(high, wide, channels)
