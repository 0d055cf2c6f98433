"""Images as applications hold them: paths, Pillow images, arrays and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnx.data.images import ImageFile
from cnnx.errors import ImageError

Given: TypeAlias = Any
"""A path, a Pillow image, a uint8 array (H, W, C) or (H, W), or a uint8 PyTorch tensor (C, H, W)."""

_HINT = "give a path, a Pillow image, a uint8 array (H, W, C) or a uint8 tensor (C, H, W)"
_PREPROCESSED = "for images that are already preprocessed, call run with float32 (N, C, H, W)"


def each_of(images: Given | Sequence[Given]) -> list[Given]:
    """One image or several, as a list: an array or tensor with four axes is several."""
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if hasattr(images, "ndim") and hasattr(images, "shape"):
        return list(images) if images.ndim == 4 else [images]
    try:
        return list(images)
    except TypeError:
        raise ImageError(f"{type(images).__name__} is not an image", hint=_HINT) from None


def as_image(given: Given) -> Image.Image:
    """Decode or convert one image. Arrays and tensors are RGB, or gray without or with one channel.

    Raises:
        ImageError: it is of another type or shape, does not have 8 bits, or cannot be decoded.
    """
    if isinstance(given, (str, Path)):
        return ImageFile(str(given), Path(given)).load()
    if isinstance(given, Image.Image):
        return given
    if type(given).__module__.partition(".")[0] == "torch":
        array = given.detach().cpu().numpy()
        return _of_array(array.transpose(1, 2, 0) if array.ndim == 3 else array, "(C, H, W)")
    if isinstance(given, np.ndarray):
        return _of_array(given, "(H, W, C)")
    raise ImageError(f"{type(given).__name__} is not an image", hint=_HINT)


def _of_array(array: NDArray[Any], layout: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"the image is {array.dtype}, not uint8", hint=_PREPROCESSED)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3) or 0 in array.shape:
        shape = tuple(array.shape)
        raise ImageError(f"the image has the shape {shape}, not {layout} with 1 or 3 channels", hint=_HINT)
    if array.ndim == 3 and channels == 1:
        array = array[..., 0]
    return Image.fromarray(np.ascontiguousarray(array))
