"""Resamples 8-bit images as Pillow does, or as OpenCV does."""

from __future__ import annotations

import importlib.util

import numpy as np
from PIL import Image

from cnnx.errors import MissingExtra
from cnnx.preprocessing import Preprocessing

_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
_OPENCV = {
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "nearest": "INTER_NEAREST",
    "lanczos": "INTER_LANCZOS4",
    "box": "INTER_AREA",
}


def resample(image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing) -> Image.Image:
    """Return an RGB or gray image with this width and height.

    Raises:
        MissingExtra: the preprocessing resamples as OpenCV does, and OpenCV is not installed.
    """
    if preprocessing.resampling == "pillow":
        return image.resize(size, _PILLOW[preprocessing.interpolation])
    if reason := missing(preprocessing):
        raise reason
    import cv2

    method = getattr(cv2, _OPENCV[preprocessing.interpolation])
    return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=method))


def missing(preprocessing: Preprocessing) -> MissingExtra | None:
    """Why the preprocessing cannot resample here; None if it can."""
    return None if preprocessing.resampling == "pillow" else missing_opencv()


def missing_opencv() -> MissingExtra | None:
    """Why images cannot be resampled as OpenCV does; None if they can."""
    if importlib.util.find_spec("cv2") is not None:
        return None
    return MissingExtra("opencv-python-headless", "opencv", purpose="resampling as OpenCV does")


def opencv_version(preprocessing: Preprocessing) -> dict[str, str]:
    """OpenCV's version as {"opencv": version}, if pixels depend on it and it is installed; else empty."""
    if preprocessing.resampling == "pillow" or missing(preprocessing):
        return {}
    import cv2

    # Not from metadata: four distributions have the module, and JetPack's has no metadata.
    return {"opencv": cv2.__version__}
