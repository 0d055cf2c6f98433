"""What a command is about to do, as far as the preconditions need to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnx.options import Batch, Precision
from cnnx.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Request:
    """What a command is about to do.

    Attributes:
        recipe: the recipe, with the user's options applied.
        weights: "pretrained", "standin", or the path of a checkpoint.
        precision: precision of the graph; None: no graph is typed.
        batch: smallest and largest batch.
        validates: whether validation images are needed.
        selects: maximum number of selection images; 0: none.
        folds: number of disjoint folds that calibration images are split into; 0: no folds.
        labels: label file of a flat validation folder.
        out: the bundle's folder; None: no bundle is written.
        with_source: whether the bundle also holds the FP32 graph.
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
    with_source: bool = False

    @property
    def calibrates(self) -> bool:
        """Whether calibration images are needed."""
        return self.precision != "fp32"


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """Maximum number of images that will be decoded, by role."""

    validation: int
    selection: int = 0
    calibration: int = 0
