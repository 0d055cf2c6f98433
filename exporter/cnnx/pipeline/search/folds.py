"""Folds of the calibration set, to see whether it is large enough.

The network is quantized by the ranges of each fold, and the results are compared. Channels are equalized
once, by the first images of the whole set, so folds differ only in their ranges.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnx.agreement import Likeness
from cnnx.data.crops import Crops
from cnnx.errors import UsageError
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.quantizer import Quantizer, equalized_graph
from cnnx.pipeline.search.trials import compare_ranges
from cnnx.pipeline.steps.artefacts import Fp32Graph, Statistics
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.pipeline.steps.statistics import statistics_step
from cnnx.quant.folds import Spread, spreads, still_moves
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

# A divergence that may still change by more than a quarter, and by more than 1e-4 nats, is not settled.
_RELATIVE, _OUTRIGHT = 0.25, 1e-4

_FILE = "folds.json"


@dataclass(frozen=True, slots=True)
class Fold:
    """How closely the network matches FP32 when quantized by the ranges of some of the images."""

    images: int
    likeness: Likeness


@dataclass(frozen=True, slots=True)
class Folds:
    """The network quantized by disjoint folds of the calibration set.

    Attributes:
        method: range method.
        whole: result for all calibration images.
        folds: result for each fold.
        spreads: how much each tensor's range varies between folds, largest first.
        still_moves: how much the divergence of `whole` may still change with different or more images, in
            nats.
        settled: whether `still_moves` is small, in absolute terms or relative to the divergence.
    """

    method: str
    whole: Fold
    folds: tuple[Fold, ...]
    spreads: tuple[Spread, ...]
    still_moves: float
    settled: bool


def fold_crops(calibration: Crops, count: int, *, batch: int) -> tuple[Crops, ...]:
    """Split the calibration images into folds, batch by batch, so that one pass over all folds suffices.

    Batches are dealt out in turn, as the images of a folder may be sorted by class.

    Args:
        calibration: all calibration images.
        count: number of folds.
        batch: number of images per batch of the graph.

    Raises:
        UsageError: a fold would be empty.
    """
    refuse_empty_folds(len(calibration), count, batch=batch)
    numbers = np.arange(len(calibration))
    return tuple(calibration.only(numbers[numbers // batch % count == fold]) for fold in range(count))


def refuse_empty_folds(images: int, count: int, *, batch: int) -> None:
    """Raise if there are fewer batches than folds.

    Raises:
        UsageError: a fold would be empty.
    """
    if count > -(-images // batch):
        batches = f" in batches of {batch}" if batch > 1 else ""
        raise UsageError(
            f"{images} calibration images{batches} do not fill {count} folds",
            hint="raise --calibration-images, or lower --folds",
        )


def observe_by_fold(
    steps: Steps,
    exported: Fp32Graph,
    images: Crops,
    folds: Sequence[Crops],
    recipe: Recipe,
    *,
    statistics: Callable[..., Statistics] = statistics_step,
) -> tuple[Quantizer, tuple[Quantizer, ...]]:
    """Return a quantizer for all images and one for each fold, with a single pass over the images.

    Args:
        steps: runs the steps.
        exported: the FP32 graph.
        images: all calibration images.
        folds: the images of each fold.
        recipe: the network's recipe.
        statistics: runs the images; see `cnnx.pipeline.runs.Runs`.

    Raises:
        BuildFailed: the equalized graph gives different logits.
    """
    graph = equalized_graph(steps, exported, images, recipe)
    parts = tuple(
        Quantizer(
            steps,
            recipe,
            graph,
            fold.list_digest,
            statistics(
                steps,
                graph,
                fold,
                recipe,
                precision="int8",
                title=f"fold {number} of {len(folds)} through the graph",
            ),
        )
        for number, fold in enumerate(folds, start=1)
    )
    seen = [part.statistics for part in parts]
    whole = statistics(steps, graph, images, recipe, precision="int8", parts=seen)
    return Quantizer(steps, recipe, graph, images.list_digest, whole), parts


def folds_step(whole: Quantizer, parts: Sequence[Quantizer], selection: Crops, *, method: str) -> Folds:
    """Quantize by the ranges of the whole set and of each fold, and compare on held-out images.

    Args:
        whole: quantizer for all calibration images.
        parts: quantizer for each fold.
        selection: images to compare on.
        method: range method.
    """
    quiet = [each.quiet() for each in (whole, *parts)]
    inputs = {
        "statistics": [each.statistics.key for each in quiet],
        "graph": whole.graph.key,
        "selection": selection.key,
        "policy": dataclasses.asdict(whole.recipe.precision),
        "method": method,
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }
    ranges = [each.ranges(method) for each in quiet]

    def fill(folder: Path, progress: Progress) -> None:
        found = compare_ranges(quiet[0], ranges, selection, progress=progress)
        text = json.dumps([dataclasses.asdict(likeness) for likeness in found], indent=1)
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")

    entry = whole.steps.make(f"{len(parts)} folds compared", "folds", inputs, fill)
    kept = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    read = [each.read() for each in ranges]
    of_whole, *of_folds = (
        Fold(each.images, Likeness(**likeness)) for each, likeness in zip(read, kept, strict=True)
    )
    divergence = of_whole.likeness.divergence
    moves = still_moves(divergence, [fold.likeness.divergence for fold in of_folds])
    return Folds(
        method=method,
        whole=of_whole,
        folds=tuple(of_folds),
        spreads=spreads(read[0], read[1:]),
        still_moves=moves,
        settled=moves <= max(_RELATIVE * divergence, _OUTRIGHT),
    )


def verdict(folds: Folds) -> tuple[str, ...]:
    """A warning if the calibration set is too small; else empty."""
    if folds.settled:
        return ()
    whole, of_folds = folds.whole, [fold.likeness.divergence for fold in folds.folds]
    return (
        "The calibration set is too small: the divergence from FP32 is "
        f"{min(of_folds):.2g} to {max(of_folds):.2g} nats with {folds.folds[0].images} images and "
        f"{whole.likeness.divergence:.2g} nats with all {whole.images}, and may still change by "
        f"{folds.still_moves:.2g}. Raise --calibration-images, or give a larger --calibration-data.",
    )
