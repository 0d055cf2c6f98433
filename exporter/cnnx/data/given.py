"""Images as applications hold them: paths, Pillow images, arrays and tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnx.data.images import ImageFile
from cnnx.errors import ImageError
from cnnx.limits import MAX_PIXELS

Given: TypeAlias = Any
"""A path, a Pillow image, a uint8 array (H, W, C) or (H, W), or a uint8 PyTorch tensor (C, H, W)."""

_HINT = "give a path, a Pillow image, a uint8 array (H, W, C) or a uint8 tensor (C, H, W)"
_PREPROCESSED = "for images that are already preprocessed, call run with float32 (N, C, H, W)"


def each_of(images: Given | Sequence[Given]) -> list[Given]:
    """One image or several, as a list: an array or tensor with four axes is several.

    Raises:
        ImageError: it is neither.
    """
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if hasattr(images, "ndim") and hasattr(images, "shape"):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (bytes, Mapping)) or not isinstance(images, Iterable):
        raise ImageError(f"{type(images).__name__} is not an image", hint=_HINT)
    return list(images)


def as_image(given: Given) -> Image.Image:
    """Decode or convert one image. Arrays and tensors are RGB, or gray without or with one channel.

    Raises:
        ImageError: it is of another type or shape, too large, does not have 8 bits, or cannot be decoded.
    """
    if isinstance(given, (str, Path)):
        return ImageFile(str(given), Path(given)).load()
    if isinstance(given, Image.Image):
        return _loaded(given)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.Tensor):
        return _of_tensor(given)
    if isinstance(given, np.ndarray):
        return _of_array(given, given.shape, "(H, W, C)")
    raise ImageError(f"{type(given).__name__} is not an image", hint=_HINT)


def _loaded(image: Image.Image) -> Image.Image:
    """A Pillow image whose pixels can be read; Pillow decodes late, and raises nearly anything."""
    if 0 in image.size:
        raise ImageError(f"the image has the size {image.size}", hint=_HINT)
    if image.width * image.height > MAX_PIXELS:
        what = f"the image is too large: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
        raise ImageError(what, hint="scale the image down")
    try:
        image.load()
    except Exception as error:
        raise ImageError(
            f"cannot be decoded: {error}", hint="check that the file is whole and open"
        ) from error
    return image


def _of_tensor(tensor: Any) -> Image.Image:
    if str(tensor.dtype) != "torch.uint8" or str(tensor.layout) != "torch.strided" or tensor.is_meta:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ImageError(f"the tensor is {kind}, not dense uint8", hint=_PREPROCESSED)
    array = tensor.detach().cpu().numpy()
    return _of_array(array.transpose(1, 2, 0) if array.ndim == 3 else array, tuple(tensor.shape), "(C, H, W)")


def _of_array(array: NDArray[Any], shape: tuple[int, ...], layout: str) -> Image.Image:
    """An image from an array (H, W, C) or (H, W); `shape` and `layout` are those that the caller knows."""
    if array.dtype != np.uint8:
        raise ImageError(f"the image is {array.dtype}, not uint8", hint=_PREPROCESSED)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3) or 0 in array.shape:
        raise ImageError(f"the image has the shape {shape}, not {layout} with 1 or 3 channels", hint=_HINT)
    if array.ndim == 3 and channels == 1:
        array = array[..., 0]
    return _loaded(Image.fromarray(np.ascontiguousarray(array)))
