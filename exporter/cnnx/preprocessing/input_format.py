"""How a graph takes images: as normalized floats, or as pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from cnnx.limits import MAX_PIXELS
from cnnx.preprocessing import CHANNELS, Color, Contradiction, Preprocessing
from cnnx.preprocessing.geometry import resized

PATTERN = r"^(float32-nchw|uint8-(nhwc|nchw)(-(rgb|bgr|gray))?(:[1-9][0-9]{0,4}x[1-9][0-9]{0,4})?)(?![\s\S])"

_RAW = re.compile(r"uint8-(nhwc|nchw)(?:-(rgb|bgr|gray))?(?::([0-9]+)x([0-9]+))?")
_IN_GRAPH = ("bilinear", "bicubic", "nearest")
_KEY = "input.format"


@dataclass(frozen=True, slots=True)
class InputFormat:
    """Type, layout and channels of a graph's input.

    Attributes:
        type: "float32": normalized images. "uint8": pixels, which the graph normalizes.
        layout: "NCHW" or "NHWC".
        color: order of the channels.
        frame: height and width of the images the graph takes, and resizes; None: it takes crops.
    """

    type: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]
    color: Color
    frame: tuple[int, int] | None = None

    def __str__(self) -> str:
        """As a recipe states it, with every part."""
        if not self.is_raw:
            return "float32-nchw"
        size = "" if self.frame is None else ":{}x{}".format(*self.frame)
        return f"uint8-{self.layout.lower()}-{self.color}{size}"

    @property
    def is_raw(self) -> bool:
        """Whether the graph takes pixels."""
        return self.type == "uint8"

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of one image at the input, for a network that takes (channels, height, width)."""
        channels, height, width = shape
        height, width = self.frame or (height, width)
        return (channels, height, width) if self.layout == "NCHW" else (height, width, channels)


def input_format(text: str, preprocessing: Preprocessing) -> InputFormat:
    """Read a format such as "uint8-nhwc-bgr:1080x1920", which matches `PATTERN`.

    Without a color, the channels have the order that the network was trained with.
    """
    found = _RAW.fullmatch(text)
    if found is None:
        return InputFormat("float32", "NCHW", preprocessing.color)
    layout: Literal["NCHW", "NHWC"] = "NHWC" if found[1] == "nhwc" else "NCHW"
    color = cast("Color", found[2] or preprocessing.color)
    frame = (int(found[3]), int(found[4])) if found[3] else None
    return InputFormat("uint8", layout, color, frame)


def format_contradiction(form: InputFormat, preprocessing: Preprocessing) -> Contradiction | None:
    """What of a format contradicts the preprocessing, or cannot be done in a graph."""
    if CHANNELS[form.color] != CHANNELS[preprocessing.color]:
        what = f"the input has the channels {form.color}, but the network takes {preprocessing.color} images"
        return Contradiction(what, _KEY, _hint_for_color(preprocessing))
    if form.frame is None:
        return None
    if form.frame[0] * form.frame[1] > MAX_PIXELS:
        what = "images of {} x {} are too large: more than ".format(*form.frame) + f"{MAX_PIXELS:,} pixels"
        return Contradiction(what, _KEY, "resize outside the graph")
    wide, high = resized(form.frame[1], form.frame[0], preprocessing)
    if high > form.frame[0] or wide > form.frame[1]:
        what = "images of {} x {} are smaller than the network's resize makes them".format(*form.frame)
        return Contradiction(what, _KEY, f"give at least {high} x {wide}, or resize outside the graph")
    if preprocessing.interpolation not in _IN_GRAPH:
        what = f"ONNX has no Resize with the interpolation {preprocessing.interpolation!r}"
        known = ", ".join(_IN_GRAPH)
        return Contradiction(what, _KEY, f"resize outside the graph, or choose from {known}")
    if len(set(preprocessing.fill)) > 1:
        what = "a graph pads with one value, but preprocessing.fill has one per channel"
        return Contradiction(what, _KEY, "resize outside the graph, or give one value for fill")
    return None


def _hint_for_color(preprocessing: Preprocessing) -> str:
    if preprocessing.color == "gray":
        return "convert the camera's images to gray before the network"
    return "give rgb or bgr; repeat the channel of a gray camera three times before the network"
