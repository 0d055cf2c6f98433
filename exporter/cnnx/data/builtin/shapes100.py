"""Built-in set "shapes100": drawn pictures of 100 classes, for networks trained and judged on them.

A class is a shape (disc, square, triangle, cross, star) in a texture (plain, striped, checked, dotted,
ringed) and an arrangement (alone, pair, a row of three, a trio in a triangle). All else is drawn apart from
the class: colours, contrast and its sign, place, turn, size, stretch, a waved ground, up to eight bars
behind and before the figures, blur, light from one side, noise. So no colour and no pixel tells a class;
classes that share two of the three parts are near each other, classes that share none are far. Turned or
mirrored, a picture keeps its class.

A (split, index) has the same scene at every size, 32 pixels or more, and the same bytes on every machine:
integers from a counter, and float32 arithmetic that IEEE 754 fixes to the last bit. The noise's grain is one
pixel.
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
"""Counts up with every change that alters a pixel: it is part of each picture's digest."""
SEED = 100
SOURCE = f"procedural shapes of 100 classes, generator {VERSION}, seed {SEED}; free to use"
LENGTHS: dict[Split, int] = {"train": 1_000_000, "calibration": 4096, "selection": 4096, "validation": 10_000}
CLASS_NAMES = tuple(
    f"{texture} {shape} {arrangement}"
    for shape in SHAPES
    for texture in TEXTURES
    for arrangement in ARRANGEMENTS
)

# Coprime to 100: each hundred pictures holds every class once, and a few in a row are of far classes.
_STRIDE = 37
_AT_ONCE = 64 * 1024  # pixels; more do not stay in a core's cache
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # ITU-R 601, in 65536ths, as Pillow converts


def open_set(split: Split, *, size: int, color: str) -> ImageSet:
    """The pictures of one split, each `size` x `size` pixels, in "rgb" or "gray"."""
    # Not `synthetic`: that says that pictures only stand in for those a network was trained on, and that no
    # verdict is passed on them. These are what networks are trained on, and what their accuracy is of.
    pictures = Made(LENGTHS[split], lambda index: _Picture(split, index, size, color))
    return ImageSet("shapes100", SOURCE, pictures, class_names=CLASS_NAMES)


def labels_of(indices: ArrayLike) -> NDArray[np.int64]:
    """The class of each picture; balanced in every hundred."""
    return np.asarray(indices, np.int64) * _STRIDE % len(CLASS_NAMES)


def draw_batch(
    split: Split, indices: ArrayLike, *, size: int, color: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures and labels; a picture does not depend on those drawn with it.

    Args:
        split: "train", "calibration", "selection" or "validation".
        indices: (N,), from 0 to `LENGTHS[split]` - 1.
        size: side in pixels.
        color: "rgb" or "gray".

    Returns:
        (N, size, size, 3 or 1) and (N,).

    Raises:
        IndexError: the split has no such picture.
    """
    wanted = np.asarray(indices, np.int64)
    if np.any((wanted < 0) | (wanted >= LENGTHS[split])):
        raise IndexError(f"{split} has the pictures 0 to {LENGTHS[split] - 1}")
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
class _Picture:
    """One picture, not yet drawn."""

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
        """SHA-256 of all that the pixels follow from."""
        identity = f"shapes100 {VERSION} {SEED} {self.id} {self.size} {self.color}"
        return hashlib.sha256(identity.encode()).hexdigest()

    def load(self) -> Image.Image:
        pixels, _ = draw_batch(self.split, [self.index], size=self.size, color=self.color)
        return Image.fromarray(pixels[0].squeeze(axis=2) if self.color == "gray" else pixels[0])
