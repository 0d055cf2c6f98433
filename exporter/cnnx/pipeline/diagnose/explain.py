"""What a diagnosis comes to, in plain words. Each sentence rests on figures that stand beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cnnx.pipeline.diagnose.findings import Findings, LayerDamage
from cnnx.pipeline.search.repair import REPAIR_IMAGES, would_pass
from cnnx.quant.calibration import Calibration
from cnnx.quant.coverage import Coverage
from cnnx.recipe import Recipe

# What is called most of the damage, and the share of the layers that may do it before it is called spread.
_MOST, _FEW_LAYERS, _SPREAD = 0.8, 0.25, 0.5
# Damages that are independent add up. Within this factor they are said to.
_ADDS_UP = 1.5
# ResNet-20 as it was trained stays well clear of each of these (its worst: 1.7, 55 steps, 2 %, 0, 0.5); the
# layers of its hostile twin that were scaled are far past the last four (1.4 steps, 34 %, 36 %, 0.25).
_FAR_OUT = 2.0  # largest value over the range
_COARSE = 8.0  # steps that the middle channel takes
_LOST = 0.1  # share of the weights that round to zero
_DEAD = 0.1  # share of the channels that round to zero
_THIN = 0.1  # 99.9 % of the values, over the range
_FEW_PICTURES = 64
_EXPLAINED = 3


def read_findings(findings: Findings, *, recipe: Recipe, calibration: Calibration) -> tuple[str, ...]:
    """Sentences: how bad it is, who does it, why, and what to try."""
    said = [_overall(findings)]
    ranking = [each for each in findings.layers if each.share > 0]
    if not ranking:
        return (*said, "No layer does any damage alone.")
    culprits = _culprits(ranking)
    layers = len(findings.layers)
    said += [_ranking(layers, culprits), _sum(findings)]
    images = max(findings.images, REPAIR_IMAGES)
    if would_pass(findings.whole, recipe.acceptance.int8, images=images):
        return (*said, "On these pictures its rates of agreement would clear the gates.")
    coverages = {each.tensor: each for each in findings.tensors}
    explained = [(each, coverages[each.tensor]) for each in culprits[:_EXPLAINED]]
    said += _causes(explained)
    return (*said, *_advice(layers, culprits, explained, recipe=recipe, calibration=calibration))


def _overall(findings: Findings) -> str:
    whole = findings.whole
    return (
        f"In INT8 the network diverges by {_nats(whole.divergence)} from FP32; {len(findings.flips)} of "
        f"{findings.images} pictures get another first class. With no layer in INT8 it is "
        f"{_nats(findings.floor.divergence)}."
    )


def _culprits(ranking: Sequence[LayerDamage]) -> list[LayerDamage]:
    """As many of the first as make most of the damage."""
    found, share = [], 0.0
    for layer in ranking:
        found.append(layer)
        share += layer.share
        if share >= _MOST:
            break
    return found


def _ranking(layers: int, culprits: Sequence[LayerDamage]) -> str:
    share = sum(each.share for each in culprits)
    names = ", ".join(each.layer for each in culprits[:_EXPLAINED])
    more = f" and {len(culprits) - _EXPLAINED} more" if len(culprits) > _EXPLAINED else ""
    spread = ", spread over the network" if _is_spread(layers, culprits) else ""
    return (
        f"{len(culprits)} of {layers} layers make {share:.0%} of the damage that layers do alone"
        f"{spread}: {names}{more}."
    )


def _is_spread(layers: int, culprits: Sequence[LayerDamage]) -> bool:
    return layers > 2 and len(culprits) >= _SPREAD * layers


def _sum(findings: Findings) -> str:
    """Whether the layers' damages add up."""
    floor = findings.floor.divergence
    alone = sum(each.likeness.divergence - floor for each in findings.layers)
    whole = findings.whole.divergence - floor
    if not (math.isfinite(alone) and math.isfinite(whole)):
        return "Some logits are not finite: what layers do alone cannot be summed."
    if alone <= 0:
        return "What layers do alone is within what the other type does without INT8."
    figures = f"{_nats(alone)} in sum, {_nats(whole)} together"
    if whole > _ADDS_UP * alone:
        return f"Together they do more than in sum ({figures}): what one breaks, others enlarge."
    if alone > _ADDS_UP * whole:
        return f"Together they do less than in sum ({figures}): their errors cancel or overlap in part."
    return f"Their damages add up ({figures})."


def _causes(explained: Sequence[tuple[LayerDamage, Coverage]]) -> list[str]:
    """What of the range or the weights of these layers is out of the ordinary."""
    said, sound = [], []
    for layer, tensor in explained:
        signs = [*_range_signs(tensor), *_resolution_signs(layer, tensor)]
        kind = "range" if _range_signs(tensor) else "resolution"
        if signs:
            said.append(f"{layer.layer} lacks {kind}: {'; '.join(signs)}.")
        elif not math.isfinite(layer.likeness.divergence):
            said.append(f"{layer.layer} alone in INT8 makes logits that are not finite.")
        else:
            sound.append(layer.layer)
    if sound:
        said.append(f"Nothing stands out in range, channels or weights of {', '.join(sound)}.")
    return said


def _range_signs(tensor: Coverage) -> list[str]:
    if tensor.maximum < _FAR_OUT * tensor.amax:
        return []
    return [
        f"what it reads reaches {tensor.maximum / tensor.amax:.1f} times as far as its range "
        f"({tensor.saturated:.2%} of the values are cut off)"
    ]


def _resolution_signs(layer: LayerDamage, tensor: Coverage) -> list[str]:
    signs = []
    if tensor.dead_share >= _DEAD:
        signs.append(
            f"{tensor.dead_channels} of the {tensor.channels} channels that it reads round to zero throughout"
        )
    if 0 < tensor.middle_steps < _COARSE:
        signs.append(f"the middle channel takes {tensor.middle_steps:.1f} of 127 steps")
    if tensor.body < _THIN:
        signs.append(f"99.9 % of the values lie in {tensor.body:.1%} of the range, which few values set")
    if layer.weights_lost >= _LOST:
        signs.append(f"{layer.weights_lost:.0%} of its weights round to zero")
    return signs


def _advice(
    layers: int,
    culprits: Sequence[LayerDamage],
    explained: Sequence[tuple[LayerDamage, Coverage]],
    *,
    recipe: Recipe,
    calibration: Calibration,
) -> list[str]:
    """What to try, the cheapest first: nothing that the figures do not speak for."""
    coarse = any(_resolution_signs(layer, tensor) for layer, tensor in explained)
    cut_off = any(_range_signs(tensor) for _, tensor in explained)
    thin = any(tensor.body < _THIN for _, tensor in explained)
    advice = []
    if coarse and not recipe.precision.equalize:
        advice.append(
            "Leave out --no-equalize: equalizing lets channels of very different size share a range."
        )
    if cut_off or (thin and calibration.method == "max"):
        advice.append(f"Try --method auto: {calibration.method} chose these ranges.")
    if calibration.images < _FEW_PICTURES:
        advice.append(f"Give more calibration pictures: ranges are of {calibration.images}, 512 are usual.")
    if len(culprits) <= max(1, _FEW_LAYERS * layers):
        advice.append("--repair should cost little: few layers have to return to FP16.")
    elif _is_spread(layers, culprits):
        advice.append("--repair would have to return much of the network to FP16.")
    return advice


def _nats(divergence: float) -> str:
    return f"{divergence:.2g} nats" if math.isfinite(divergence) else "infinitely many nats"
