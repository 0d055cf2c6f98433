"""Built-in set "shapes100": procedural images of 100 classes for training and validating networks.

A class combines a shape (disc, square, triangle, cross, star), a texture (plain, striped, checked, dotted,
ringed) and an arrangement (alone, pair, row of three, triangle of three). Everything else is random and
independent of the class: colours, contrast and its sign, position, rotation, size, stretch, waves in the
background, up to eight bars behind and in front of the figures, blur, light from one side, and noise. No
single colour or pixel therefore identifies a class. Classes that share two of the three parts are similar;
classes that share none are dissimilar. A rotated or mirrored image keeps its class.

A (split, index) gives the same scene at every size from 32 pixels up, and the same bytes on every machine:
the inputs are integers from a counter, and IEEE 754 defines the float32 operations to the last bit. The
grain of the noise is one pixel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cnnx.data.builtin.draws import Draws
from cnnx.data.builtin.shapes100_fields import SHAPES, TEXTURES
from cnnx.data.builtin.shapes100_paint import ARRANGEMENTS, paint
from cnnx.data.images import ImageSet, Made, Split

VERSION = 1
"""Increment when a change alters any pixel; it is part of each image's digest."""
SEED = 100
SOURCE = f"procedural shapes of 100 classes, generator {VERSION}, seed {SEED}; free to use"
LENGTHS: dict[Split, int] = {"train": 1_000_000, "calibration": 4096, "selection": 4096, "validation": 10_000}
CLASS_NAMES = tuple(
    f"{texture} {shape} {arrangement}"
    for shape in SHAPES
    for texture in TEXTURES
    for arrangement in ARRANGEMENTS
)

# Coprime to 100: every hundred images contain each class once, and consecutive images differ widely.
_STRIDE = 37
_AT_ONCE = 64 * 1024  # pixels; more do not fit in a core's cache
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # ITU-R 601, in 65536ths, as Pillow converts


def open_set(split: Split, *, size: int, color: str) -> ImageSet:
    """Open one split, with images of `size` x `size` pixels in "rgb" or "gray"."""
    # Not `synthetic`: networks are trained and validated on these images, so they support a verdict.
    images = Made(LENGTHS[split], lambda index: _Image(split, index, size, color))
    return ImageSet("shapes100", SOURCE, images, class_names=CLASS_NAMES)


def labels_of(indices: ArrayLike) -> NDArray[np.int64]:
    """Return the class of each image; every hundred images are balanced."""
    return np.asarray(indices, np.int64) * _STRIDE % len(CLASS_NAMES)


def draw_batch(
    split: Split, indices: ArrayLike, *, size: int, color: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images and their labels; an image does not depend on the rest of the batch.

    Args:
        split: "train", "calibration", "selection" or "validation".
        indices: image indices (N,), from 0 to `LENGTHS[split]` - 1.
        size: side in pixels.
        color: "rgb" or "gray".

    Returns:
        Pixels (N, size, size, 3 or 1) and labels (N,).

    Raises:
        IndexError: an index is out of range.
    """
    wanted = np.asarray(indices, np.int64)
    if np.any((wanted < 0) | (wanted >= LENGTHS[split])):
        raise IndexError(f"{split} has images 0 to {LENGTHS[split] - 1}")
    labels = labels_of(wanted)
    kinds = np.stack(np.unravel_index(labels, (len(SHAPES), len(TEXTURES), len(ARRANGEMENTS))))
    pixels = np.empty((len(wanted), size, size, {"rgb": 3, "gray": 1}[color]), np.uint8)
    step = max(1, _AT_ONCE // size**2)
    for start in range(0, len(wanted), step):
        part = slice(start, start + step)
        painted = paint(Draws(SEED, split, wanted[part]), kinds[:, part], size)
        pixels[part] = painted if color == "rgb" else _gray(painted)
    return pixels, labels


def _gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red, green, blue = (pixels[..., i].astype(np.uint32) * _LUMA[i] for i in range(3))
    gray: NDArray[np.uint8] = ((red + green + blue + (1 << 15)) >> 16).astype(np.uint8)
    return gray[..., None]


@dataclass(frozen=True, slots=True)
class _Image:
    """One image, drawn on load."""

    split: Split
    index: int
    size: int
    color: str

    @property
    def id(self) -> str:
        return f"{self.split}/{self.index:06d}"

    @property
    def label(self) -> int:
        return int(labels_of(self.index))

    def digest(self) -> str:
        """Return the SHA-256 of everything that determines the pixels."""
        identity = f"shapes100 {VERSION} {SEED} {self.id} {self.size} {self.color}"
        return hashlib.sha256(identity.encode()).hexdigest()

    def load(self) -> Image.Image:
        pixels, _ = draw_batch(self.split, [self.index], size=self.size, color=self.color)
        return Image.fromarray(pixels[0].squeeze(axis=2) if self.color == "gray" else pixels[0])
