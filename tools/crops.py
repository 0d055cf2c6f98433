"""Loads images of a built-in set with a recipe's preprocessing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import write_crops
from cnnx.data.images import Split
from cnnx.data.sets import open_images
from cnnx.recipe import Recipe


def crops_of(
    recipe: Recipe, data: str, split: Split, count: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Pixels (N, H, W, C) before normalization, and labels if the set has them; the first `count`, or all."""
    size, color = recipe.preprocessing.side(recipe.input.shape), recipe.preprocessing.drawn_in
    images = open_images(data, size=size, color=color, split=split, classes=recipe.model.classes)
    with tempfile.TemporaryDirectory() as folder:
        crops = write_crops(
            images,
            recipe.preprocessing,
            shape=recipe.input.shape,
            count=count or len(images),
            folder=Path(folder),
            progress=lambda *_: None,
        )
        return np.array(crops.pixels), crops.labels
