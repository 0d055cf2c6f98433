"""`--repair`: layers that INT8 harms go back to FP16, chosen by the selection pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from cnnx.agreement import Likeness
from cnnx.data.crops import Crops
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.trials import Trials
from cnnx.pipeline.steps.artefacts import Ranges
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.quant.repair import Outcome, PutBack, Repair, repair
from cnnx.recipe import Recipe, Thresholds
from cnnx.stats import Verdict, wilson
from cnnx.store.own_code import own_code

REPAIR_IMAGES = 512
"""Pictures that choose what goes back. They are neither calibrated on nor validated with."""

_FILE = "repair.json"
_PUT_BACK = "put back by repair"


def repair_step(
    quantizer: Quantizer,
    ranges: Ranges,
    selection: Crops,
    *,
    costs: Mapping[str, int],
    most: int,
    validation_images: int,
) -> Repair:
    """The layers to put back, found in at most so many trials.

    A search that was stopped goes on where it was. A trial passes where the rates of agreement on the
    selection pictures would clear the recipe's INT8 gates on as many pictures as validate (or 512, where
    those are so few that no rate could). Accuracy is left to validation: what chooses has no labels.

    Args:
        quantizer: whose INT8 graph fails.
        ranges: that it was quantized by.
        selection: pictures that choose.
        costs: INT8 layer -> its multiply-adds.
        most: trials.
        validation_images: how many pictures will validate.
    """
    recipe = quantizer.recipe
    inputs = {
        "graph": quantizer.graph.key,
        "ranges": ranges.key,
        "selection": selection.key,
        "policy": dataclasses.asdict(recipe.precision),
        "acceptance": dataclasses.asdict(recipe.acceptance.int8),
        "validation": validation_images,
        "scales": quantizer.scales,
        "most": most,
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }
    journal = quantizer.steps.store.partial("repair", inputs)

    def fill(folder: Path, progress: Progress) -> None:
        trials = Trials(quantizer, ranges.read(), selection.pixels, layers=list(costs), journal=journal)
        done = 0

        def attempt(int8: frozenset[str]) -> Outcome:
            nonlocal done
            likeness = trials(int8)
            done += 1
            progress(done, most)
            images = max(validation_images, REPAIR_IMAGES)
            return Outcome(likeness.divergence, would_pass(likeness, recipe.acceptance.int8, images=images))

        found = repair(list(costs), attempt, costs=costs, most=most)
        (folder / _FILE).write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n", encoding="utf-8")
        journal.remove()

    entry = quantizer.steps.make("repair", "repair", inputs, fill)
    data = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    return Repair(
        put_back=tuple(PutBack(**each) for each in data["put_back"]),
        before=Outcome(**data["before"]),
        after=Outcome(**data["after"]),
        tried=data["tried"],
        exhausted=data["exhausted"],
    )


def would_pass(likeness: Likeness, thresholds: Thresholds, *, images: int) -> bool:
    """Whether these rates, seen on so many validation pictures, would clear the gates of agreement."""
    rates = (
        (likeness.top1_agreement, thresholds.top1_agreement),
        (likeness.top1_in_top5, thresholds.top1_in_top5),
        (likeness.top5_agreement, thresholds.top5_agreement),
    )
    return all(wilson(rate, images).against(threshold) is Verdict.PASSED for rate, threshold in rates)


def put_back_reason(each: PutBack) -> str:
    """Why a layer is in FP16, as its bundle says it."""
    return f"{_PUT_BACK}: alone in INT8 it diverges by {each.alone:.2g} nats"


def without_repair(recipe: Recipe) -> Recipe:
    """The recipe as it was before repair put anything back: what observing the pictures went by."""
    kept = tuple(each for each in recipe.precision.overrides if not each.reason.startswith(_PUT_BACK))
    return dataclasses.replace(recipe, precision=dataclasses.replace(recipe.precision, overrides=kept))
