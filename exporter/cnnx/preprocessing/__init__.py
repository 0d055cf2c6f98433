"""Preprocessing from an image to a network's input: its keys and their consistency.

Every key is explicit here. `cnnx.preprocessing.presets` reads the short forms, such as a preset's name.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta

from cnnx.schema import Positive

Color = Literal["rgb", "bgr", "gray"]
Fit = Literal["shorter", "longer", "squash", "letterbox", "none"]

CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}

_Deviation = Annotated[
    float, Meta(gt=0, description="a positive number, in units of the divided pixel values")
]
_Divisor = Annotated[float, Meta(gt=0, description="a positive number, such as 255")]
_Byte = Annotated[int, Meta(ge=0, le=255, description="an integer from 0 to 255")]
_Fill = Annotated[tuple[_Byte, ...], Meta(min_length=1, description="one value, or one per channel")]
# Not tuple[Positive, Positive]: msgspec 0.23 crashes on a union of a limited integer and a fixed tuple.
_Box = Annotated[tuple[Positive, ...], Meta(min_length=2, max_length=2, description="[height, width]")]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Preprocessing from an image to the network's input.

    The image is resized by `fit` and `resize`, and the center is cropped to the input size, both on 8-bit
    pixels. Where the resized image is smaller than the input, it is centered and padded with `fill`. Then
    y = (x / divisor - mean) / std for each channel, in channels, height, width order.

    Attributes:
        color: "rgb", "bgr" or "gray": the channels of the input, in order.
        resize: a length in pixels, or [height, width]; see `fit`. null for the fit "none".
        interpolation: "bilinear", "bicubic", "nearest", "lanczos" or "box"; see `resampling`.
        mean: one value per channel, for pixel values divided by `divisor`.
        std: one value per channel, for pixel values divided by `divisor`.
        fit: "shorter": the shorter side becomes `resize`, or the image covers the box `resize`. "longer":
            the longer side becomes `resize`. "letterbox": the image fits into the box `resize`. "squash": the
            image becomes `resize`, without its aspect ratio. "none": the image is not resized.
        fill: color of the padding, 0 to 255: one value, or one per channel in the order of `color`.
        divisor: pixel values are divided by it: 255, or for example 127.5 or 1.
        resampling: "pillow": antialiased when shrinking, except "nearest". "opencv": as cv2.resize, not
            antialiased; "box" is INTER_AREA and "lanczos" INTER_LANCZOS4.
        exif: turn the image upright by its EXIF orientation first.
        assumed: nobody has stated this preprocessing; a verdict under it says so.
    """

    color: Color = "rgb"
    resize: Positive | _Box | None = 256
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[_Deviation, ...] = (0.229, 0.224, 0.225)
    fit: Fit = "shorter"
    fill: _Fill = (0,)
    divisor: _Divisor = 255.0
    resampling: Literal["pillow", "opencv"] = "pillow"
    exif: bool = False
    assumed: bool = False

    @property
    def box(self) -> tuple[int, int] | None:
        """`resize` as height and width; None if nothing is resized."""
        if self.resize is None:
            return None
        height, width = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        return height, width

    @property
    def drawn_in(self) -> Literal["rgb", "gray"]:
        """Color of generated images, before channels are reordered."""
        return "gray" if self.color == "gray" else "rgb"

    def as_key(self) -> dict[str, Any]:
        """What results depend on, for keys of steps: not whether the preprocessing was stated."""
        keys = dataclasses.asdict(self)
        del keys["assumed"]
        return keys

    def side(self, shape: tuple[int, int, int]) -> int:
        """Side of generated images for an input of this shape (channels, height, width)."""
        return max(self.box or shape[1:])


class Contradiction(NamedTuple):
    """What is wrong with a preprocessing, the key at fault (of the recipe), and a hint."""

    what: str
    key: str
    hint: str


def contradiction(preprocessing: Preprocessing, shape: tuple[int, int, int]) -> Contradiction | None:
    """The first key that contradicts another one, or the input's shape (channels, height, width)."""
    channels, expected = shape[0], CHANNELS[preprocessing.color]
    if channels != expected:
        return Contradiction(
            f"{preprocessing.color} images have {expected} channels, but input.shape is {list(shape)}",
            "input.shape",
            f"set shape = {[expected, *shape[1:]]}, or change preprocessing.color",
        )
    for key in ("mean", "std"):
        if (given := len(getattr(preprocessing, key))) != channels:
            what = f"{key} needs one value per channel: {channels}, not {given}"
            hint = f"write {channels} values, as in {key} = {[0.5] * channels}"
            return Contradiction(what, f"preprocessing.{key}", hint)
    if (given := len(preprocessing.fill)) not in (1, channels):
        what = f"fill needs one value, or one per channel: {channels}, not {given}"
        return Contradiction(what, "preprocessing.fill", "write one value, as in fill = [114]")
    return _wrong_size(preprocessing, shape)


def _wrong_size(preprocessing: Preprocessing, shape: tuple[int, int, int]) -> Contradiction | None:
    key, box, fit = "preprocessing.resize", preprocessing.box, preprocessing.fit
    if (box is None) != (fit == "none"):
        if box is None:
            return Contradiction(f'the fit "{fit}" needs resize', key, "add resize, as in resize = 256")
        return Contradiction(
            'the fit "none" resizes nothing', key, "drop resize, or change preprocessing.fit"
        )
    if box is None or fit in ("longer", "letterbox"):
        return None  # a smaller image is padded
    # One length is compared with both sides, as a shorter side says nothing about which one it is.
    if box[0] < shape[1] or box[1] < shape[2]:
        what = (
            f"the crop is larger than the resized image: input.shape is {list(shape)}, "
            f"preprocessing.resize is {_plain(preprocessing.resize)}"
        )
        return Contradiction(what, key, f"set resize to {max(shape[1:])} or more")
    return None


def _plain(size: object) -> object:
    return list(size) if isinstance(size, tuple) else size
