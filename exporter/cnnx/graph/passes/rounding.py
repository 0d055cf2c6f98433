"""Rounds the weights of a convolution that reads images, so that its response to smooth images stays.

Neighboring pixels are nearly equal, and so are the colors of a pixel, so that errors of the weights that
read them add up: of 27 weights, each rounded to the nearest integer, a smooth patch sees the sum of the
errors. If a few weights move to the other neighbor, the errors cancel. GPTQ and AdaRound do so by calibration
images; here, a fixed model of images takes their place.

Frantar, Ashkboos, Hoefler and Alistarh, GPTQ: Accurate Post-Training Quantization, arXiv:2210.17323; Nagel,
Amjad, van Baalen, Louizos and Blankevoort, Up or Down? Adaptive Rounding, arXiv:2004.10568.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PIXELS, _COLORS = 0.98, 0.95
"""Correlation of neighboring pixels (it falls with distance as a power), and of two channels of a pixel."""
_LEVELS = 127


def round_for_smooth_images(
    weight: NDArray[np.float32], integers: NDArray[np.int8], scale: NDArray[np.float32]
) -> NDArray[np.int8]:
    """Integers of a weight with the least error on smooth images, found by single steps from given ones.

    No result is worse than `integers` under the model of images; each has at most 127 as its magnitude.

    Args:
        weight: weight of a convolution without groups, (out, in, height, width).
        integers: the nearest integers, of the same shape.
        scale: one scale per output channel.
    """
    outputs = len(weight)
    correlation = smooth_correlation(*weight.shape[1:])
    steps = scale.astype(np.float64)[:, None]
    found = integers.reshape(outputs, -1).astype(np.float64)
    error = found * steps - weight.reshape(outputs, -1).astype(np.float64)
    gradient = error @ correlation
    rows = np.arange(outputs)
    # A step of one weight up or down changes the error of the output by this; diagonals are 1.
    for _ in range(4 * found.shape[1]):
        up = np.where(found < _LEVELS, 2 * steps * gradient + steps**2, np.inf)
        down = np.where(found > -_LEVELS, -2 * steps * gradient + steps**2, np.inf)
        rises = up.min(axis=1) <= down.min(axis=1)
        place = np.where(rises, up.argmin(axis=1), down.argmin(axis=1))
        gain = np.where(rises, up.min(axis=1), down.min(axis=1))
        moves = np.where(gain < -1e-9 * steps[:, 0] ** 2, np.where(rises, 1.0, -1.0), 0.0)
        if not moves.any():
            break
        found[rows, place] += moves
        gradient += (moves * steps[:, 0])[:, None] * correlation[place]
    return found.astype(np.int8).reshape(weight.shape)


def smooth_correlation(channels: int, height: int, width: int) -> NDArray[np.float64]:
    """Correlation of the values that a kernel reads from a smooth image, in the order of its weights."""
    channel, y, x = (each.reshape(-1) for each in np.indices((channels, height, width)))
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    return np.asarray(_PIXELS**distance * np.where(channel[:, None] == channel, 1.0, _COLORS))
