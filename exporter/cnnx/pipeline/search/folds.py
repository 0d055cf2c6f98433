"""The calibration set in parts: what the ranges of each would have made of the network.

Channels are equalized once, by the first pictures of the whole set: folds differ by their ranges alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnx.agreement import Likeness
from cnnx.data.crops import Crops
from cnnx.errors import UsageError
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.quantizer import Quantizer, equalized_graph
from cnnx.pipeline.search.trials import compare_ranges
from cnnx.pipeline.steps.artefacts import Fp32Graph
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.pipeline.steps.statistics import statistics_step
from cnnx.quant.folds import Spread, spreads, still_moves
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

# A divergence that may still move by a quarter is not settled, unless that is less than this many nats.
_RELATIVE, _OUTRIGHT = 0.25, 1e-4

_FILE = "folds.json"


@dataclass(frozen=True, slots=True)
class Fold:
    """The network quantized by the ranges of some of the pictures, held against FP32."""

    images: int
    likeness: Likeness


@dataclass(frozen=True, slots=True)
class Folds:
    """What the ranges of disjoint parts of the calibration set would have made of the network.

    Attributes:
        method: how ranges were chosen.
        whole: by all calibration pictures.
        folds: by each part.
        spreads: how far each tensor's range moves, the worst first.
        still_moves: nats by which the whole's divergence may still move with other or more pictures.
        settled: that is little, beside the divergence itself or outright.
    """

    method: str
    whole: Fold
    folds: tuple[Fold, ...]
    spreads: tuple[Spread, ...]
    still_moves: float
    settled: bool


def fold_crops(calibration: Crops, count: int, *, batch: int) -> tuple[Crops, ...]:
    """The calibration pictures dealt out, batch by batch, so that all folds together are one pass.

    Dealt out, not cut: a folder's pictures may be in the order of their classes.

    Args:
        count: folds.
        batch: pictures that the graph takes at a time.

    Raises:
        UsageError: a fold would be empty.
    """
    refuse_empty_folds(len(calibration), count, batch=batch)
    numbers = np.arange(len(calibration))
    return tuple(calibration.only(numbers[numbers // batch % count == fold]) for fold in range(count))


def refuse_empty_folds(images: int, count: int, *, batch: int) -> None:
    """Refuse to deal out fewer batches than folds.

    Raises:
        UsageError: a fold would be empty.
    """
    if count > -(-images // batch):
        at_a_time = f", {batch} at a time," if batch > 1 else ""
        raise UsageError(
            f"{images} calibration pictures{at_a_time} do not fill {count} folds",
            hint="give more --calibration-images, or fewer --folds",
        )


def observe_by_fold(
    steps: Steps, exported: Fp32Graph, images: Crops, folds: Sequence[Crops], recipe: Recipe
) -> tuple[Quantizer, tuple[Quantizer, ...]]:
    """A quantizer of all images and one of each fold; one pass over the images serves both.

    Raises:
        BuildFailed: the equalized graph computes something else.
    """
    graph = equalized_graph(steps, exported, images, recipe)
    parts = tuple(
        Quantizer(
            steps,
            recipe,
            graph,
            fold,
            statistics_step(
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
    whole = statistics_step(steps, graph, images, recipe, precision="int8", parts=seen)
    return Quantizer(steps, recipe, graph, images, whole), parts


def folds_step(whole: Quantizer, parts: Sequence[Quantizer], selection: Crops, *, method: str) -> Folds:
    """Quantize by the whole set's ranges and by each fold's, and compare on held-out images.

    Args:
        whole: of all calibration images.
        parts: of each fold.
        selection: images that compare.
        method: how ranges are chosen.
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
    of_whole, *of_folds = (
        Fold(len(each.images), Likeness(**likeness)) for each, likeness in zip(quiet, kept, strict=True)
    )
    first, *others = (each.read() for each in ranges)
    divergence = of_whole.likeness.divergence
    moves = still_moves(divergence, [fold.likeness.divergence for fold in of_folds])
    return Folds(
        method=method,
        whole=of_whole,
        folds=tuple(of_folds),
        spreads=spreads(first, others),
        still_moves=moves,
        settled=moves <= max(_RELATIVE * divergence, _OUTRIGHT),
    )


def verdict(folds: Folds) -> tuple[str, ...]:
    """A warning where the set is too small."""
    if folds.settled:
        return ()
    whole, of_folds = folds.whole, [fold.likeness.divergence for fold in folds.folds]
    return (
        f"The calibration set is too small: by {folds.folds[0].images} pictures the network diverges by "
        f"{min(of_folds):.2g} to {max(of_folds):.2g} nats, by all {whole.images} by "
        f"{whole.likeness.divergence:.2g}, and that may still move by {folds.still_moves:.2g}. "
        "Give more --calibration-images, or --calibration-data with more of them.",
    )
