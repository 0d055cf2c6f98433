"""Converts 8-bit crops to the input of a network's graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cnnx.data.normalize import normalize
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.geometry import offset, resized
from cnnx.preprocessing.input_format import InputFormat


def network_input(
    crops: NDArray[np.uint8], preprocessing: Preprocessing, form: InputFormat
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return crops as a graph of this format takes them.

    Args:
        crops: 8-bit pixels, (N, H, W, C), in the preprocessing's color; or frames, if the graph takes them.
        preprocessing: the network's.
        form: the format of the graph's input. Crops become frames by `frames_of`.

    Returns:
        (N, C, H, W) or (N, H, W, C), C-contiguous.
    """
    if not form.is_raw:
        return normalize(crops, preprocessing)
    pixels = crops if form.color == preprocessing.color else crops[..., ::-1]
    if form.frame is not None and pixels.shape[1:3] != form.frame:
        pixels = frames_of(pixels, preprocessing, form.frame)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if form.layout == "NCHW" else pixels)


def frames_of(
    crops: NDArray[np.uint8], preprocessing: Preprocessing, frame: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return frames that a graph's Resize turns into these crops again.

    Each pixel of the crop becomes a block of the frame. A Resize that is not antialiased reads the two pixels
    nearest to the center of a block, which are both inside it if it is at least two pixels wide: bilinear
    gives the crop exactly where the frame is shrunk at least twofold, bicubic fourfold. Otherwise the frame
    is blurred a little. Outside the crop, frames repeat its edge.

    Args:
        crops: (N, H, W, C).
        preprocessing: resize and fit.
        frame: height and width of a frame.

    Returns:
        (N, height, width, C).
    """
    wide, high = resized(frame[1], frame[0], preprocessing)
    rows = _sources(frame[0], high, crops.shape[1])
    columns = _sources(frame[1], wide, crops.shape[2])
    return crops[:, rows][:, :, columns]


def _sources(length: int, scaled: int, crop: int) -> NDArray[np.intp]:
    """The crop's row (or column) for each of the frame's; padding is not in a frame."""
    centers = (np.arange(length) + 0.5) * scaled / length
    places = np.clip(centers.astype(np.intp), 0, scaled - 1) - offset(scaled, crop)
    return np.clip(places, 0, crop - 1)
