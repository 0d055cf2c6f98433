"""Converts 8-bit crops to normalized network input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cnnx.preprocessing import Preprocessing


def normalize(crops: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return (x / divisor - mean) / std for each channel.

    Each step is rounded to float32 as in torchvision's ToTensor and Normalize, and in Keras's
    preprocess_input, so results are equal to the last bit. A lookup table with 256 entries per channel
    replaces the arithmetic.

    Args:
        crops: 8-bit pixels, (N, H, W, C).
        preprocessing: divisor, and mean and standard deviation of each channel.

    Returns:
        Network input, (N, C, H, W), C-contiguous.
    """
    count, height, width, channels = crops.shape
    values = np.arange(256, dtype=np.float32)[:, None] / np.float32(preprocessing.divisor)
    table = (values - np.asarray(preprocessing.mean, np.float32)) / np.asarray(preprocessing.std, np.float32)
    images = np.empty((count, channels, height, width), np.float32)
    for channel in range(channels):
        images[:, channel] = table[:, channel].take(crops[..., channel])
    return images
