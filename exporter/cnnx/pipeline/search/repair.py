"""`--repair`: moves the layers that INT8 harms most back to FP16, chosen on the selection images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from cnnx.agreement import Likeness, rate_estimate
from cnnx.data.crops import Crops
from cnnx.gates import RATES, Estimate, Limits, gates_of
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.trials import Trials
from cnnx.pipeline.steps.artefacts import Ranges
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.quant.repair import Outcome, PutBack, Repair, repair
from cnnx.recipe import Recipe
from cnnx.stats import Verdict
from cnnx.store.own_code import own_code

REPAIR_IMAGES = 512
"""Number of selection images for repair. They are not used for calibration or validation."""

_FILE = "repair.json"
KEPT = "left in FP16 by export"
"""How the reason begins why a layer or a shortcut is in FP16 after an export tried it."""
_PUT_BACK = "put back by repair"
LEFT_OUT = "left out by tune"
"""How the reason begins why a layer or a shortcut has no Q/DQ after `cnnx tune`."""
_SEARCHES = (_PUT_BACK, LEFT_OUT, KEPT)


def repair_step(
    quantizer: Quantizer,
    ranges: Ranges,
    selection: Crops,
    *,
    costs: Mapping[str, int],
    most: int,
    validation_images: int,
) -> Repair:
    """Search for the layers to put back into FP16.

    The journal of trials stays in the cache: a search that was stopped, or another one with a different
    maximum number of trials, other gates or other validation images, does not repeat them.

    A trial passes if its agreement rates on the selection images would pass the recipe's INT8 gates on
    `validation_images` images, or on 512 if there are fewer, as no rate could pass on very few. Accuracy is
    left to validation, as the selection images have no labels.

    Args:
        quantizer: quantizer whose INT8 graph fails.
        ranges: ranges it was quantized by.
        selection: images to compare on.
        costs: INT8 layer -> its MACs.
        most: maximum number of trials.
        validation_images: number of validation images.
    """
    recipe = quantizer.recipe
    limits, images = recipe.gates.of("int8"), max(validation_images, REPAIR_IMAGES)
    # What a trial depends on; its journal serves any number of trials and any gates.
    tried = {
        "graph": quantizer.graph.key,
        "ranges": ranges.key,
        "selection": selection.key,
        "preprocessing": recipe.preprocessing.as_key(),
        "policy": dataclasses.asdict(recipe.precision),
        "scales": quantizer.scales,
        "code": own_code("cnnx.pipeline.search.trials", RUNNER),
        **ran_by(),
    }
    inputs = {
        **tried,
        "gates": limits.set(),
        "validation": images,
        "most": most,
        "search": own_code(__name__),
    }
    journal = quantizer.steps.store.partial("repair", tried)

    def fill(folder: Path, progress: Progress) -> None:
        trials = Trials(quantizer, ranges.read(), selection.pixels, layers=list(costs), journal=journal)
        done = 0

        def attempt(int8: frozenset[str]) -> Outcome:
            nonlocal done
            likeness = trials(int8)
            done += 1
            progress(done, most)
            return Outcome(likeness.divergence, would_pass(likeness, limits, images=images))

        found = repair(list(costs), attempt, costs=costs, most=most)
        (folder / _FILE).write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n", encoding="utf-8")

    entry = quantizer.steps.make("repair", "repair", inputs, fill)
    data = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    return Repair(
        put_back=tuple(PutBack(**each) for each in data["put_back"]),
        before=Outcome(**data["before"]),
        after=Outcome(**data["after"]),
        tried=data["tried"],
        exhausted=data["exhausted"],
    )


def would_pass(likeness: Likeness, limits: Limits, *, images: int) -> bool:
    """Whether this similarity would pass the gates on this number of validation images.

    Margins are not known here, so that the limit of clear images holds for all of them.
    """
    found = {key: rate_estimate(getattr(likeness, key), images) for key in RATES}
    found |= {"clear_agreement": found["top1_agreement"], "divergence_nats": Estimate(likeness.divergence)}
    return all(gate.verdict is Verdict.PASSED for gate in gates_of(limits, found, found))


def put_back_reason(each: PutBack) -> str:
    """The reason why a layer is in FP16, as its bundle records it."""
    return f"{_PUT_BACK}: alone in INT8 it diverges by {each.alone:.2g} nats"


def unsearched(recipe: Recipe) -> Recipe:
    """The recipe without the overrides of searches: calibration images were observed with it."""
    kept = tuple(each for each in recipe.precision.overrides if not each.reason.startswith(_SEARCHES))
    return dataclasses.replace(recipe, precision=dataclasses.replace(recipe.precision, overrides=kept))


def stated(recipe: Recipe) -> Recipe:
    """The recipe with all its overrides as the user's own, also those copied from what a search has found.

    Calibration images are observed with them, so `unsearched` must not take them away again.
    """
    own = tuple(
        dataclasses.replace(each, reason=f"stated: {each.reason}")
        if each.reason.startswith(_SEARCHES)
        else each
        for each in recipe.precision.overrides
    )
    return dataclasses.replace(recipe, precision=dataclasses.replace(recipe.precision, overrides=own))
