"""Converts an image to a crop: orientation, color mode, resize, center crop, padding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cnnx.data.resampling import resample
from cnnx.errors import ImageError
from cnnx.limits import MAX_PIXELS
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.geometry import offset, resized

_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}


def crop(image: Image.Image, preprocessing: Preprocessing, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Convert, resize and center-crop one image, and pad it where it is smaller.

    Alpha is dropped, not blended, as in torchvision. Samples of more than 8 bits are refused because Pillow
    would clip them at 255 instead of scaling them.

    Args:
        image: an image of any size and 8-bit mode.
        preprocessing: everything up to the 8-bit pixels.
        shape: channels, height, width of the crop.

    Returns:
        The pixels, (height, width, channels).

    Raises:
        ImageError: the image has more than 8 bits per sample, or would be too large when resized.
        MissingExtra: the preprocessing resamples as OpenCV does, and OpenCV is not installed.
    """
    if image.mode[0] in "IF":
        raise ImageError("has samples of more than 8 bits", hint="convert it to 8 bits per channel")
    if preprocessing.exif:
        image = _upright(image)
    width, height = resized(*image.size, preprocessing)
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the resized image would be too large: {width} x {height} pixels, more than {MAX_PIXELS:,}",
            hint="crop its longer side, or leave the image out",
        )
    try:
        image = image.convert(_MODES[preprocessing.color])
    except ValueError as error:  # Pillow cannot convert every mode, such as LAB
        raise ImageError(
            f"has the mode {image.mode}, which Pillow cannot convert: {error}", hint="convert it to RGB"
        ) from error
    if preprocessing.box is not None:
        image = resample(image, (width, height), preprocessing)
    channels, high, wide = shape
    left, top = offset(width, wide), offset(height, high)
    inside = image.crop((max(left, 0), max(top, 0), min(left + wide, width), min(top + high, height)))
    pixels = np.asarray(inside, np.uint8).reshape(inside.height, inside.width, channels)
    if preprocessing.color == "bgr":
        pixels = pixels[..., ::-1]
    if pixels.shape == (high, wide, channels):
        return pixels
    padded = np.empty((high, wide, channels), np.uint8)
    padded[:] = preprocessing.fill
    above, before = max(-top, 0), max(-left, 0)
    padded[above : above + inside.height, before : before + inside.width] = pixels
    return padded


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    # Pillow's EXIF reader raises nearly anything on damaged data, as its decoders do.
    except Exception as error:
        raise ImageError(
            f"has EXIF data that cannot be read: {error}",
            hint='remove the EXIF data, or leave the image out, or set "exif = false"',
        ) from error
