"""Tries cheap changes at export, where INT8 takes a network far from its original, and keeps what pays."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnx.agreement import Likeness
from cnnx.data.crops import Crops
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.changes import Changeable, ChangeTrials, described, remedies_of, with_changes
from cnnx.pipeline.search.repair import KEPT, REPAIR_IMAGES, would_pass
from cnnx.pipeline.steps.artefacts import Ranges
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.pipeline.steps.typed_graph import prepare
from cnnx.quant.remedies import Advice, Remedies, Remedy, advise
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

REMEDY_IMAGES = 128
"""Number of held-out images. With fewer than a quarter of them, nothing is tried."""

# Trained networks of the recipes diverge by 0.001 to 0.003 nats: nothing is tried up to this.
_FAR = 4e-3
# What is kept must take a quarter off the divergence.
_WORTH = 0.75
# The first and the last layer may leave INT8 if this share of the MACs stays there.
_LEAST_SHARE = 0.9
# In attention, single layers do most of the damage that is left. This number of them may leave INT8, found by
# halving, as long as this share of the MACs stays there.
_LAYERS, _LEAST_OF_ATTENTION = 3, 0.85
_FILE = "remedies.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """Changes that an export keeps.

    Attributes:
        remedies: the changes; empty if none pays, or the network is close enough.
        before: how closely the network matches its FP32 graph without them.
        after: the same with them.
        images: number of images that they were tried on.
    """

    remedies: Remedies
    before: Likeness
    after: Likeness
    images: int

    @property
    def note(self) -> str:
        """A sentence for the user."""
        return (
            f"Export changed how INT8 is done, as it pays on {self.images} held-out images: "
            f"{described(self.remedies)}; divergence {self.before.divergence:.2g} -> "
            f"{self.after.divergence:.2g} nats, top-1 agreement {self.before.top1_agreement:.1%} -> "
            f"{self.after.top1_agreement:.1%} (precision.remedies = false turns this off)."
        )

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with the changes."""
        reason = (
            f"{KEPT}: with {described(self.remedies)}, divergence {self.before.divergence:.2g} -> "
            f"{self.after.divergence:.2g} nats on {self.images} held-out images"
        )
        return with_changes(recipe, self.remedies, reason=reason)


def remedies_step(
    quantizer: Quantizer,
    ranges: Ranges,
    images: Crops,
    *,
    costs: Mapping[str, int],
    share: float,
    validation_images: int,
) -> Kept:
    """Try the INT8 graph, and cheap changes if it is far from the FP32 graph.

    Args:
        quantizer: quantizer of the INT8 graph.
        ranges: ranges it was quantized by.
        images: held-out images.
        costs: INT8 layer -> its MACs.
        share: share of the network's MACs in INT8.
        validation_images: number of validation images.
    """
    recipe, pixels = quantizer.recipe, images.pixels[:REMEDY_IMAGES]
    limits, judged = recipe.gates.of("int8"), max(validation_images, REPAIR_IMAGES)
    inputs = {
        "graph": quantizer.graph.key,
        "ranges": ranges.key,
        "images": [images.key, len(pixels)],
        "preprocessing": recipe.preprocessing.as_key(),
        "policy": dataclasses.asdict(recipe.precision),
        "gates": limits.set(),
        "validation": judged,
        "scales": quantizer.scales,
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }
    journal = quantizer.steps.store.partial("early-remedies", inputs)

    def fill(folder: Path, progress: Progress) -> None:
        done = 0

        def said() -> None:
            nonlocal done
            done += 1
            progress(done, 0)

        trials = ChangeTrials(
            Changeable(quantizer.quiet(), ranges.read()),
            pixels,
            passes=lambda likeness: would_pass(likeness, limits, images=judged),
            journal=journal,
            said=said,
        )
        remedies: Remedies = ()
        if trials(()).outcome.distance > _FAR:
            free, layers = _candidates(quantizer, ranges, costs, share)
            if _has_attention(quantizer):
                remedies = _kept(advise(free, (), trials))
                remedies = _with_layers(remedies, trials, costs, share)
            else:
                remedies = _kept(advise(free, layers, trials))
        found = [dataclasses.asdict(trials.likenesses[each]) for each in ((), remedies)]
        text = json.dumps({"remedies": [dataclasses.asdict(each) for each in remedies], "found": found})
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")
        journal.remove()

    entry = quantizer.steps.make("INT8 on held-out images", "early-remedies", inputs, fill)
    data = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    before, after = (Likeness(**each) for each in data["found"])
    return Kept(remedies_of(data["remedies"]), before, after, len(pixels))


def _kept(advice: Advice) -> Remedies:
    start, chosen = advice.tried[0], advice.chosen
    pays = chosen is not None and chosen.outcome.distance <= _WORTH * start.outcome.distance
    return chosen.remedies if chosen is not None and pays else ()


def _has_attention(quantizer: Quantizer) -> bool:
    """Whether the network multiplies two activations."""
    from cnnx.graph import edit
    from cnnx.graph.load import load_model

    model = load_model(quantizer.graph.model)
    constants = edit.initializers(model.graph)
    return any(
        node.op_type == "MatMul" and constants.keys().isdisjoint(node.input) for node in model.graph.node
    )


def _with_layers(
    remedies: Remedies, trials: ChangeTrials, costs: Mapping[str, int], share: float
) -> Remedies:
    """The changes with layers in FP16 that do most of what damage is left, while each pays.

    Where logits are not finite, no gain can be measured, and no layer is given up.
    """
    total = sum(costs.values()) / share
    for _ in range(_LAYERS):
        now = trials(remedies).outcome.distance
        if now <= _FAR or not math.isfinite(now):
            break
        gone = {name for each in remedies if each.kind == "fp16" for name in each.layers}
        layer = _worst([name for name in costs if name not in gone], remedies, trials, costs)
        changed = (*remedies, Remedy("fp16", (layer,), cost=costs[layer]))
        left = share - sum(each.cost for each in changed) / total
        if trials(changed).outcome.distance > _WORTH * now or left < _LEAST_OF_ATTENTION:
            break
        remedies = changed
    return remedies


def _worst(group: list[str], remedies: Remedies, trials: ChangeTrials, costs: Mapping[str, int]) -> str:
    """The layer that does most of the damage, by halving: of a group, the half without which less is left.

    Damage nearly adds up, so that what one half does not do, the other one does.
    """
    now = trials(remedies).outcome.distance
    damage = now
    while len(group) > 1:
        half = len(group) // 2
        without = (*remedies, *(Remedy("fp16", (name,), cost=costs[name]) for name in group[:half]))
        left = trials(without).outcome.distance
        # If logits are not finite without the half in INT8, it is of no help.
        found = now - left if math.isfinite(left) else 0.0
        group, damage = (group[:half], found) if 2 * found >= damage else (group[half:], damage - found)
    return group[0]


def _candidates(
    quantizer: Quantizer, ranges: Ranges, costs: Mapping[str, int], share: float
) -> tuple[list[Remedy], list[Remedy]]:
    """Changes without a cost, and the first and the last layer if enough MACs stay in INT8 without them."""
    from cnnx.graph.policy.placement import reading_images

    calibration = ranges.read()
    prepared = prepare(
        quantizer.graph, calibration, quantizer.recipe, precision="int8", scales=quantizer.scales
    )
    free = []
    rounded = reading_images(prepared.model, prepared.plan)
    if rounded and quantizer.recipe.precision.first_rounding == "nearest":
        free.append(Remedy("rounding", rounded))
    if sums := tuple(layer.node for layer in prepared.plan if layer.rule == "residual"):
        free.append(Remedy("shortcuts", sums))
    names, layers = list(costs), []
    total, left = sum(costs.values()) / share if share else 0.0, share
    for name in dict.fromkeys((names[0], names[-1]) if names else ()):
        if left - costs[name] / total >= _LEAST_SHARE:
            left -= costs[name] / total
            layers.append(Remedy("fp16", (name,), cost=costs[name]))
    return free, layers
