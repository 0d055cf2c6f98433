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
from cnnx.own_code import own_code
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.search.trials import compare_ranges
from cnnx.pipeline.steps.inference import ORT, ran_by
from cnnx.pipeline.steps.ranges import calibration_step, read_calibration
from cnnx.pipeline.steps.statistics import statistics_step
from cnnx.quant.folds import Spread, spreads, still_moves
from cnnx.recipe import Recipe
from cnnx.store import Entry

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
    batches = -(-len(calibration) // batch)
    if count > batches:
        at_a_time = f", {batch} at a time," if batch > 1 else ""
        raise UsageError(
            f"{len(calibration)} calibration pictures{at_a_time} do not fill {count} folds",
            mend="give more --calibration-images, or fewer --folds",
        )
    numbers = np.arange(len(calibration))
    return tuple(calibration.only(numbers[numbers // batch % count == fold]) for fold in range(count))


def statistics_by_fold(
    steps: Steps, graph: Entry, calibration: Crops, folds: Sequence[Crops], recipe: Recipe
) -> tuple[Entry, tuple[Entry, ...]]:
    """What all pictures showed of the graph, and what each fold did; one pass serves both."""
    parts = tuple(
        statistics_step(
            steps,
            graph,
            fold,
            recipe,
            precision="int8",
            title=f"fold {number} of {len(folds)} through the graph",
        )
        for number, fold in enumerate(folds, start=1)
    )
    return statistics_step(steps, graph, calibration, recipe, precision="int8", parts=parts), parts


def folds_step(
    steps: Steps,
    graph: Entry,
    whole: tuple[Crops, Entry],
    parts: Sequence[tuple[Crops, Entry]],
    selection: Crops,
    recipe: Recipe,
    *,
    method: str,
) -> Folds:
    """Quantize by the whole set's ranges and by each fold's, and compare on held-out pictures.

    Args:
        graph: the FP32 graph that is quantized.
        whole: all calibration pictures and what they showed of it.
        parts: the same of each fold.
        selection: pictures that compare.
        method: how ranges are chosen.
    """
    sets = (whole, *parts)
    inputs = {
        "statistics": [statistics.key for _, statistics in sets],
        "graph": graph.key,
        "selection": selection.key,
        "policy": dataclasses.asdict(recipe.precision),
        "method": method,
        "code": own_code(__name__, ORT),
        **ran_by(),
    }
    inner = Steps(store=steps.store)
    ranges = [calibration_step(inner, statistics, crops, method=method) for crops, statistics in sets]

    def fill(folder: Path, progress: Progress) -> None:
        found = compare_ranges(inner, graph, ranges, selection, recipe, scales="fp16", progress=progress)
        text = json.dumps([dataclasses.asdict(likeness) for likeness in found], indent=1)
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")

    entry = steps.make(f"{len(parts)} folds compared", "folds", inputs, fill)
    kept = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    of_whole, *of_folds = (
        Fold(len(crops), Likeness(**each)) for (crops, _), each in zip(sets, kept, strict=True)
    )
    first, *others = map(read_calibration, ranges)
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
