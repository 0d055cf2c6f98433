"""Small image files for the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def image(path: Path, *, size: tuple[int, int] = (40, 30), seed: int = 0, mode: str = "RGB") -> Path:
    """Write random noise to a file; the suffix selects the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seeds = (seed, *str(path.name).encode())
    pixels = np.random.default_rng(seeds).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path
