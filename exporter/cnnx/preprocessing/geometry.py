"""Sizes and places of the resize and the center crop.

The geometry of the fit "shorter" is that of torchvision's `Resize` and `CenterCrop`, with which the published
accuracies of classic networks were measured. The other fits are those of timm's `create_transform`.
"""

from __future__ import annotations

from cnnx.preprocessing import Preprocessing


def resized(width: int, height: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return width and height after the resize."""
    if preprocessing.box is None:
        return width, height
    high, wide = preprocessing.box
    if preprocessing.fit == "squash":
        return wide, high
    if preprocessing.fit == "shorter" and isinstance(preprocessing.resize, int):
        # torchvision truncates the other side.
        short, long = sorted((width, height))
        other = int(preprocessing.resize * long / short)
        return (preprocessing.resize, other) if width <= height else (other, preprocessing.resize)
    # timm's ResizeKeepRatio: a box that the image covers, or fits into; both sides are rounded.
    chosen = min if preprocessing.fit == "shorter" else max
    ratio = chosen(height / high, width / wide)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def offset(length: int, crop: int) -> int:
    """Return the start of the center crop; negative where padding comes first.

    Halves round as in torchvision: to the even neighbour for a crop, and to the upper left for padding.
    """
    return -((crop - length) // 2) if length < crop else round((length - crop) / 2.0)
