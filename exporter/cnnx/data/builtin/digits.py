"""Built-in set "digits": 1,797 handwritten digits of 8 x 8 pixels with a fixed split.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (test part), https://doi.org/10.24432/C50P49, CC BY 4.0. See calibration/digits.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnx.data.images import ImageSet, Split, spread
from cnnx.errors import ImageError
from cnnx.resources import shared_folder

SOURCE = (
    "Optical Recognition of Handwritten Digits, test part; E. Alpaydin and C. Kaynak, UCI Machine Learning "
    "Repository 1998, doi 10.24432/C50P49; CC BY 4.0; 800 for validation, 997 for training and calibration"
)


def open_set(split: Split, *, size: int, color: str) -> ImageSet:  # noqa: ARG001 - 8 x 8 and gray as they are
    """Open one split: the 997 training digits of LeNet-5, or the 800 held-out ones.

    Raises:
        ImageError: the file is missing from the installation or damaged.
    """
    pixels, labels, validation = _read()
    chosen = np.flatnonzero(validation if split == "validation" else ~validation)
    items = [_Digit(f"{i:04d}", pixels[i], int(labels[i])) for i in chosen.tolist()]
    return ImageSet("digits", SOURCE, spread(items), class_names=tuple("0123456789"))


@dataclass(frozen=True, slots=True, eq=False)
class _Digit:
    """One digit, named by its row in the source."""

    id: str
    pixels: NDArray[np.uint8]
    label: int

    def digest(self) -> str:
        """Return the SHA-256 of the 64 pixels as shipped."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()

    def load(self) -> Image.Image:
        return Image.fromarray(self.pixels)


@functools.cache
def _read() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    file = shared_folder("calibration") / "digits" / "digits.npz"
    try:
        with np.load(file, allow_pickle=False) as data:
            return data["pixels"], data["labels"], data["validation"]
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(
            f"the built-in digits cannot be read: {error}",
            where=file,
            hint="reinstall cnnx, or restore calibration/digits/digits.npz in the checkout",
        ) from error
