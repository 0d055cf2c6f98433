"""What a verb is about to do, as far as names and sizes tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnx.options import Batch, Precision
from cnnx.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Request:
    """What a verb is about to do.

    Attributes:
        recipe: with the user's options laid over it.
        weights: "pretrained", "standin", or a checkpoint.
        precision: of the graph; None: no graph is typed.
        batch: smallest and largest.
        validates: whether validation images are needed.
        selects: maximum number of images to choose by; 0: none.
        folds: number of disjoint sets that calibration images are dealt out into; 0: they are not.
        labels: for a flat validation folder, the file that gives each image's class.
        out: the bundle's folder; None: no bundle is made.
    """

    recipe: Recipe
    weights: str
    precision: Precision | None
    batch: Batch = (1, 1)
    validates: bool = True
    selects: int = 0
    folds: int = 0
    labels: Path | None = None
    out: Path | None = None

    @property
    def calibrates(self) -> bool:
        """Whether calibration images are needed."""
        return self.precision != "fp32"


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """Maximum number of images that will be decoded, by what they are for."""

    validation: int
    selection: int = 0
    calibration: int = 0
