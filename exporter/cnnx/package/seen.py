"""Part of an image that a network sees. Packages carry a copy of this file: it imports nothing of cnnx."""

from __future__ import annotations

from collections.abc import Sequence


def seen(
    width: int,
    height: int,
    *,
    fit: str,
    resize: int | Sequence[int] | None,
    size: Sequence[int],
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """The part of an image that the network sees, and where it lies in the network's input.

    Args:
        width: width of the image.
        height: height of the image.
        fit: `fit` of the preprocessing.
        resize: `resize` of the preprocessing: a length, or height and width.
        size: height and width of the network's input.

    Returns:
        Left, top, right and bottom in the image, in pixels and fractions of them; and in the input, in whole
        pixels. The rest of the input is padding.
    """
    wide, high = _resized(width, height, fit, resize)
    left, right, before, after = _along(width, wide, size[1])
    top, bottom, above, below = _along(height, high, size[0])
    return (left, top, right, bottom), (before, above, after, below)


def _resized(width: int, height: int, fit: str, resize: int | Sequence[int] | None) -> tuple[int, int]:
    """Width and height after the resize, rounded as in torchvision (a length) and timm (a box)."""
    if resize is None:
        return width, height
    if fit == "shorter" and isinstance(resize, int):
        other = int(resize * max(width, height) / min(width, height))
        return (resize, other) if width <= height else (other, resize)
    high, wide = (resize, resize) if isinstance(resize, int) else resize
    if fit == "squash":
        return wide, high
    chosen = min if fit == "shorter" else max
    ratio = chosen(height / high, width / wide)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _along(length: int, scaled: int, crop: int) -> tuple[float, float, int, int]:
    """Start and end in the image, and in the input, along one axis."""
    if scaled < crop:
        before = (crop - scaled) // 2
        return 0.0, float(length), before, before + scaled
    start = round((scaled - crop) / 2)
    return start * length / scaled, (start + crop) * length / scaled, 0, crop
