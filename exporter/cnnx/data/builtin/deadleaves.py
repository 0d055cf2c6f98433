"""Built-in set "deadleaves": procedural images with the statistics of natural images.

A scene is a pile of opaque discs ("leaves") of radius r, with density proportional to r^-3. Seen from above,
it has occlusion edges, objects of every scale and a 1/f^2 power spectrum, like photographs (Lee, Mumford and
Huang, "Occlusion models for natural images", IJCV 41, 2001). In addition:

* Colours vary mostly in lightness, less from yellow to blue and least from red to green. They vary in
  logarithms, along the axes of Ruderman, Cronin and Chiao, "Statistics of cone responses to natural images",
  JOSA A 15, 1998.
* Each leaf has its own gradient and a crop of one 1/f texture.
* The whole image has a light that falls off to one side, and an exposure.

The images have no classes. They replace photographs, which cannot be shipped. Ranges calibrated on them are
close to those from photographs but not equal, so they support no verdict on a network trained on photographs.

A (seed, split, index) gives the same leaves at every size; the texture's grain is one pixel. All randomness
comes from uniform doubles of PCG64, whose stream NumPy keeps across versions. Builds of NumPy differ in the
last bit of `exp`, so a few values in a million may differ by 1 between machines.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnnx.data.images import ImageSet, Made, Split

VERSION = 1
"""Increment when a change alters any pixel; it is part of each image's digest."""
LENGTH = 100_000
SEED = 2001
SOURCE = f"procedural dead leaves (Lee, Mumford, Huang 2001), generator {VERSION}, seed {SEED}; free to use"

_LAYERS = 2.5
# Radii for an image of side 1. The smallest radius varies between scenes: some are busy, some calm.
_SMALLEST, _LARGEST = (1 / 300, 1 / 128), 0.4
_OVERSAMPLING = 2
_TEXTURE = 256
# Standard deviations of log radiance along lightness, yellow-blue and red-green.
_SPREAD = np.array([0.9, 0.22, 0.08])
_AXES = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]]) * np.sqrt(3)

Floats = NDArray[np.float32]


def open_set(split: Split, *, size: int, color: str) -> ImageSet:
    """Open one split, with images of `size` x `size` pixels in "rgb" or "gray"."""
    mode = {"rgb": "RGB", "gray": "L"}[color]
    scenes = Made(LENGTH, lambda index: _Scene(split, index, size, mode))
    return ImageSet("deadleaves", SOURCE, scenes, synthetic=True)


@dataclass(frozen=True, slots=True)
class _Scene:
    """One image, rendered on load."""

    split: Split
    index: int
    size: int
    mode: str
    label: None = None

    @property
    def id(self) -> str:
        return f"{self.split}/{self.index:05d}"

    def digest(self) -> str:
        """Return the SHA-256 of everything that determines the pixels."""
        identity = f"deadleaves {VERSION} {SEED} {self.id} {self.size} {self.mode}"
        return hashlib.sha256(identity.encode()).hexdigest()

    def load(self) -> Image.Image:
        pixels = render((SEED, zlib.crc32(self.split.encode()), self.index), self.size)
        return Image.fromarray(pixels).convert(self.mode)


def render(seed: tuple[int, ...], size: int) -> NDArray[np.uint8]:
    """Render the scene of a seed.

    Args:
        seed: seed of this scene.
        size: side in pixels.

    Returns:
        sRGB pixels, (size, size, 3).
    """
    random = np.random.Generator(np.random.PCG64(seed))
    radii = _radii(random)
    leaves = _heap(random, radii, size * _OVERSAMPLING)
    colours = _colours(random, len(radii) + 1)
    fine = _shade(random, leaves[::_OVERSAMPLING, ::_OVERSAMPLING], len(radii) + 1)
    # Average edges in linear light over the finer grid, as the pixel of a sensor does.
    radiance: Floats = np.zeros((size, size, 3), np.float32)
    for row in range(_OVERSAMPLING):
        for column in range(_OVERSAMPLING):
            radiance += colours.take(leaves[row::_OVERSAMPLING, column::_OVERSAMPLING], axis=0)
    radiance *= (fine * _light(random, size))[..., None]
    return _develop(random, radiance)


def _radii(random: np.random.Generator) -> NDArray[np.float64]:
    """Draw radii, for an image of side 1, of enough leaves to cover each point `_LAYERS` times on average.

    A leaf of radius r touches the unit square if its centre is in a square of side 1 + 2 r. The density among
    those leaves is therefore r^-3 (1 + 2 r)^2, so that no size is rarer at the border.
    """
    busy = random.random()
    radii = np.geomspace(_SMALLEST[0] ** busy * _SMALLEST[1] ** (1 - busy), _LARGEST, 1024)
    weights = np.gradient(radii) * radii**-3 * (1 + 2 * radii) ** 2
    weights /= weights.sum()
    covered = np.sum(weights * np.pi * (radii / (1 + 2 * radii)) ** 2)
    shares = random.random(round(_LAYERS / covered))
    drawn: NDArray[np.float64] = np.interp(shares, np.cumsum(weights), radii)
    return drawn


def _heap(random: np.random.Generator, radii: NDArray[np.float64], side: int) -> NDArray[np.int32]:
    """Return the index of the visible leaf at each point, (side, side); the ground is the last index."""
    x, y = random.random((2, len(radii))) * (1 + 2 * radii) - radii
    boxes = np.stack([x - radii, y - radii, x + radii, y + radii], axis=1) * side
    image = Image.new("I", (side, side), len(radii))
    draw = ImageDraw.Draw(image)
    for leaf, box in enumerate(boxes.tolist()):
        draw.ellipse(box, fill=leaf)
    return np.asarray(image)


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw nearly normal values as sums of four uniform ones: `Generator.normal` may change its stream."""
    values: NDArray[np.float64] = (random.random((4, *shape)).sum(axis=0) - 2) * np.sqrt(3)
    return values


def _colours(random: np.random.Generator, count: int) -> Floats:
    """Draw the linear RGB radiance of each leaf, (count, 3), around a color cast of the whole image."""
    cast = _normal(random, (1, 3)) * _SPREAD / 2
    colours: Floats = np.exp((cast + _normal(random, (count, 3)) * _SPREAD) @ _AXES).astype(np.float32)
    return colours


def _shade(random: np.random.Generator, leaves: NDArray[np.int32], count: int) -> Floats:
    """Return a factor for each pixel from the gradient and texture of its leaf, (size, size)."""
    size = len(leaves)
    slopes = (_normal(random, (2, count)) * 0.4 / size).astype(np.float32)
    strength = (random.random(count) * 0.8).astype(np.float32)
    shift = (random.random(count) * _TEXTURE**2).astype(np.int32)
    down = np.arange(size, dtype=np.int32)[:, None]
    across = np.arange(size, dtype=np.int32)[None, :]
    grain = _texture().take(shift.take(leaves) + down * _TEXTURE + across, mode="wrap")
    log_factor = slopes[0].take(leaves) * down + slopes[1].take(leaves) * across
    factor: Floats = np.exp((log_factor + strength.take(leaves) * grain).astype(np.float32))
    return factor


@functools.cache
def _texture() -> Floats:
    """Return a tile of noise with amplitude 1/f, mean 0 and variance 1, flattened from (256, 256)."""
    random = np.random.Generator(np.random.PCG64(SEED))
    spectrum = np.fft.rfft2(random.random((_TEXTURE, _TEXTURE)))
    frequency = np.hypot(np.fft.fftfreq(_TEXTURE)[:, None], np.fft.rfftfreq(_TEXTURE)[None, :])
    frequency[0, 0] = np.inf
    tile = np.fft.irfft2(spectrum / frequency)
    flat: Floats = (tile / tile.std()).astype(np.float32).ravel()
    return flat


def _light(random: np.random.Generator, size: int) -> Floats:
    """Return the factor of a light that falls off to one side, (size, size)."""
    angle, strength = random.random(2) * [2 * np.pi, 0.8]
    ramp = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(strength)
    light: Floats = np.exp(ramp[:, None] * np.float32(np.sin(angle)) + ramp * np.float32(np.cos(angle)))
    return light


def _develop(random: np.random.Generator, radiance: Floats) -> NDArray[np.uint8]:
    """Expose to a mean of about 0.22 in linear light, as a camera does, and encode with gamma 2.2."""
    key = np.float32(0.22 * np.exp(0.6 * _normal(random, ())))
    exposed = np.minimum(radiance * (key / radiance.mean()), 1)
    pixels: NDArray[np.uint8] = (exposed ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)
    return pixels
