"""Explains a diagnosis in sentences. Each one gives the figures it is based on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from cnnx.pipeline.diagnose.findings import Findings, LayerDamage
from cnnx.pipeline.search.repair import REPAIR_IMAGES, would_pass
from cnnx.quant.calibration import Calibration
from cnnx.quant.coverage import Coverage
from cnnx.quant.methods import FILE
from cnnx.recipe import Recipe
from cnnx.report.words import several

# Share of the damage that counts as most of it; share of layers that counts as spread out.
_MOST, _SPREAD = 0.8, 0.5
# Independent damages add up. Within this factor they are reported to.
_ADDS_UP = 1.5
# The trained ResNet-20 stays well within each limit (its worst: 1.7, 55 steps, 2 %, 0, 0.5). The scaled
# layers of its hostile twin are far beyond the last four (1.4 steps, 34 %, 36 %, 0.25).
_FAR_OUT = 2.0  # largest value over the range
_COARSE = 8.0  # quantization steps that the median channel uses
_LOST = 0.1  # share of the weights that round to zero
_DEAD = 0.1  # share of the channels that round to zero
_THIN = 0.1  # 99.9 % of the values, over the range
_FEW_IMAGES = 64
_EXPLAINED = 3


def read_findings(findings: Findings, *, recipe: Recipe, calibration: Calibration) -> tuple[str, ...]:
    """Sentences on the size of the damage, the layers that do it, the causes, and what was found to help."""
    sentences = [_overall(findings)]
    ranking = [each for each in findings.layers if each.share > 0]
    if not ranking:
        return (*sentences, "No layer does any damage alone.")
    culprits = _culprits(ranking)
    sentences += [_ranking(len(findings.layers), culprits), *_half(findings, ranking), _sum(findings)]
    images = max(findings.images, REPAIR_IMAGES)
    if would_pass(findings.whole, recipe.gates.of("int8"), images=images):
        sentences.append("On these images its agreement rates would pass the gates.")
    else:
        coverages = {each.tensor: each for each in findings.tensors}
        sentences += _causes([(each, coverages[each.tensor]) for each in culprits[:_EXPLAINED]])
        if calibration.images < _FEW_IMAGES and calibration.method != FILE:
            sentences.append(
                f"Use more calibration images: ranges were taken from {calibration.images}, 512 is usual."
            )
    return (*sentences, *_advice(findings))


def _overall(findings: Findings) -> str:
    whole = findings.whole
    return (
        f"In INT8 the network diverges from FP32 by {_nats(whole.divergence)}, and the top class of "
        f"{len(findings.flips)} of {findings.images} images changes. With no layer in INT8 the divergence "
        f"is {_nats(findings.floor.divergence)}."
    )


def _culprits(ranking: Sequence[LayerDamage]) -> list[LayerDamage]:
    """The first layers of the ranking that together do most of the damage."""
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
        f"{len(culprits)} of {layers} layers cause {share:.0%} of the damage that layers do alone"
        f"{spread}: {names}{more}."
    )


def _is_spread(layers: int, culprits: Sequence[LayerDamage]) -> bool:
    return layers > 2 and len(culprits) >= _SPREAD * layers


def _half(findings: Findings, ranking: Sequence[LayerDamage]) -> tuple[str, ...]:
    """How many layers make half of the damage, with their MACs, where it is not one."""
    total = sum(each.multiply_adds for each in findings.layers)
    sums = list(itertools.accumulate(each.share for each in ranking))
    count = next((place for place, share in enumerate(sums, start=1) if share >= 0.5), len(sums))
    macs = sum(each.multiply_adds for each in ranking[:count])
    if count == 1:
        return ()
    return (
        f"Half of it takes {count} layers with {macs / total:.0%} of the MACs in INT8; the largest part of "
        f"one layer is {ranking[0].share:.0%}.",
    )


def _sum(findings: Findings) -> str:
    """Whether the damages of single layers add up to that of the whole."""
    floor = findings.floor.divergence
    alone = sum(each.likeness.divergence - floor for each in findings.layers)
    whole = findings.whole.divergence - floor
    if not (math.isfinite(alone) and math.isfinite(whole)):
        return "Some logits are not finite, so the damage of single layers cannot be summed."
    if alone <= 0:
        return "The damage of single layers is no larger than that of the graph without INT8."
    figures = f"{_nats(alone)} in sum, {_nats(whole)} together"
    if whole > _ADDS_UP * alone:
        return f"Together they do more damage than in sum ({figures}): layers amplify each other's errors."
    if alone > _ADDS_UP * whole:
        return f"Together they do less damage than in sum ({figures}): their errors partly cancel or overlap."
    return f"Their damages add up ({figures})."


def _causes(explained: Sequence[tuple[LayerDamage, Coverage]]) -> list[str]:
    """What is unusual about the ranges or weights of these layers."""
    sentences, sound = [], []
    for layer, tensor in explained:
        signs = [*_range_signs(tensor), *_resolution_signs(layer, tensor)]
        kind = "range" if _range_signs(tensor) else "resolution"
        if signs:
            sentences.append(f"{layer.layer} has too little {kind}: {'; '.join(signs)}.")
        elif not math.isfinite(layer.likeness.divergence):
            sentences.append(f"{layer.layer} alone in INT8 gives logits that are not finite.")
        else:
            sound.append(layer.layer)
    if sound:
        sentences.append(f"Nothing is unusual about the range, channels or weights of {', '.join(sound)}.")
    return sentences


def _range_signs(tensor: Coverage) -> list[str]:
    if tensor.maximum < _FAR_OUT * tensor.amax:
        return []
    return [
        f"its largest input value is {tensor.maximum / tensor.amax:.1f} times its range "
        f"({tensor.saturated:.2%} of the values are clipped)"
    ]


def _resolution_signs(layer: LayerDamage, tensor: Coverage) -> list[str]:
    signs = []
    if tensor.dead_share >= _DEAD:
        signs.append(f"{tensor.dead_channels} of its {tensor.channels} input channels round entirely to zero")
    if 0 < tensor.middle_steps < _COARSE:
        signs.append(f"the median channel uses {tensor.middle_steps:.1f} of 127 steps")
    if tensor.body < _THIN:
        signs.append(f"99.9 % of the values lie in {tensor.body:.1%} of the range, which a few values set")
    if layer.weights_lost >= _LOST:
        signs.append(f"{layer.weights_lost:.0%} of its weights round to zero")
    return signs


def _advice(findings: Findings) -> list[str]:
    """What the remedy that was found changes, with its figures."""
    if not findings.remedies:
        return []
    tried = f"{several(len(findings.remedies) - 1, 'change')} tried on these images"
    advice = findings.advice
    if advice is None:
        return [f"None of {tried} helps beyond chance."]
    before, after = findings.remedies[0], findings.remedies[advice.place]
    total = findings.multiply_adds
    cost = f"{after.cost / total:.1%} of the MACs leave INT8" if after.cost else "no layer leaves INT8"
    figures = (
        f"divergence {_nats(before.likeness.divergence)} -> {_nats(after.likeness.divergence)}, "
        f"top-1 agreement {before.likeness.top1_agreement:.1%} -> {after.likeness.top1_agreement:.1%}, {cost}"
    )
    if advice.reaches:
        return [f"Of {tried}, the cheapest that is enough: {advice.what}; {figures}."]
    more = "" if after.passes else " The gates would still fail: --repair searches further."
    return [f"Of {tried}, the one that helps most: {advice.what}; {figures}.{more}"]


def _nats(divergence: float) -> str:
    return f"{divergence:.2g} nats" if math.isfinite(divergence) else "infinitely many nats"
