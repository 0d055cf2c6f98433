"""Tries remedies for the damage that a diagnosis found, on held-out images."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cnnx.agreement import Likeness
from cnnx.data.crops import Crops
from cnnx.errors import ImageError
from cnnx.pipeline.diagnose.findings import LayerDamage, RemedyTrial
from cnnx.pipeline.diagnose.rebuild import BundleSources
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.search.changes import Changeable, ChangeTrials, described, remedies_of
from cnnx.pipeline.search.method import CANDIDATES
from cnnx.pipeline.search.repair import REPAIR_IMAGES, would_pass
from cnnx.pipeline.steps.images import crops_step, image_set
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.pipeline.steps.typed_graph import prepare
from cnnx.quant.calibration import Calibration
from cnnx.quant.methods import FILE
from cnnx.quant.remedies import Advice, Remedies, Remedy, advise
from cnnx.store.digests import digest_of
from cnnx.store.own_code import own_code

# Calibration with fewer images than this is also tried with twice as many, if there are.
_USUAL = 512
# Ranges of a tensor that are closer than this are not told apart.
_SAME = 0.02
# Layers whose inputs are tried with other ranges.
_RANGED = 2
_FILE = "remedies.json"


def tried_remedies(
    sources: BundleSources, layers: Sequence[LayerDamage], crops: Crops, pixels_used: int
) -> tuple[tuple[RemedyTrial, ...], int | None, bool]:
    """Try remedies and choose the cheapest that helps. A search that was stopped resumes.

    Args:
        sources: what the bundle was made from.
        layers: its layers in INT8, the most harmful first.
        crops: images to try on.
        pixels_used: how many of them.

    Returns:
        what was tried, the bundle as it is first; the place of the chosen one, or None if nothing helps; and
        whether it reaches the goal (`cnnx.quant.remedies.Advice`).
    """
    quantizer, calibration = sources.quantizer, sources.calibration
    recipe, pixels = quantizer.recipe, crops.pixels[:pixels_used]
    network = Changeable(
        quantizer, calibration, sources.exported, sources.images.calibration, _more(sources, crops)
    )
    free = tuple(_free(network, layers))
    fp16 = [Remedy("fp16", (each.layer,), cost=each.multiply_adds) for each in layers if each.share > 0]
    limits = recipe.gates.of("int8")
    inputs = {
        "graph": quantizer.graph.key,
        "statistics": quantizer.statistics.key,
        "calibration": digest_of(json.loads(calibration.to_json())),
        "crops": crops.key,
        "images": len(pixels),
        "preprocessing": recipe.preprocessing.as_key(),
        "policy": dataclasses.asdict(recipe.precision),
        "gates": limits.set(),
        "free": [dataclasses.asdict(each) for each in free],
        "layers": [each.layers[0] for each in fp16],
        "more": network.more.key if network.more else None,
        "scales": quantizer.scales,
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }
    journal = quantizer.steps.store.partial("remedies", inputs)

    def fill(folder: Path, progress: Progress) -> None:
        done, most = 0, len(free) + 12

        def said() -> None:
            nonlocal done
            done += 1
            progress(min(done, most), most)

        trials = ChangeTrials(
            network,
            pixels,
            passes=lambda likeness: would_pass(likeness, limits, images=max(len(pixels), REPAIR_IMAGES)),
            journal=journal,
            said=said,
        )
        found = _plain(advise(free, fp16, trials), trials.likenesses)
        (folder / _FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        journal.remove()

    entry = quantizer.steps.make("remedies", "remedies", inputs, fill)
    found = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    tried = []
    for each in found["tried"]:
        remedies, likeness = remedies_of(each["remedies"]), Likeness(**each["likeness"])
        cost = sum(remedy.cost for remedy in remedies)
        tried.append(
            RemedyTrial(described(remedies), remedies, cost, likeness, each["passes"], each["better"])
        )
    return tuple(tried), found["chosen"], found["reaches"]


def _plain(advice: Advice, likenesses: Mapping[Remedies, Likeness]) -> dict[str, object]:
    start = advice.tried[0]
    tried = [
        {
            "remedies": [dataclasses.asdict(each) for each in one.remedies],
            "likeness": dataclasses.asdict(likenesses[one.remedies]),
            "passes": one.outcome.passes,
            "better": one.beats(start),
        }
        for one in advice.tried
    ]
    chosen = next((place for place, one in enumerate(advice.tried) if one is advice.chosen), None)
    return {"tried": tried, "chosen": chosen, "reaches": advice.reaches}


def _free(network: Changeable, layers: Sequence[LayerDamage]) -> Iterator[Remedy]:
    """Changes that keep every layer in INT8."""
    from cnnx.graph.policy.placement import reading_images

    quantizer, calibration = network.quantizer, network.calibration
    policy, of_file = quantizer.recipe.precision, calibration.method == FILE
    methods = {
        method: quantizer.quiet().ranges(method).read()
        for method in CANDIDATES
        if method != calibration.method
    }
    yield from (
        Remedy("method", method=method) for method, each in methods.items() if _differs(each, calibration)
    )
    if not of_file:
        for layer in layers[:_RANGED]:
            yield from _ranges(layer, methods, calibration)
    prepared = prepare(
        quantizer.graph, calibration, quantizer.recipe, precision="int8", scales=quantizer.scales
    )
    if prepared.centered or not policy.center:
        yield Remedy("center", on=not policy.center)
    if network.exported is not None and not of_file:
        yield Remedy("equalize", on=not policy.equalize)
    if network.more is not None:
        yield Remedy("images", images=len(network.more))
    rounded = reading_images(prepared.model, prepared.plan)
    if rounded and policy.first_rounding == "nearest" and not of_file:
        yield Remedy("rounding", rounded)
    if sums := tuple(layer.node for layer in prepared.plan if layer.rule == "residual"):
        yield Remedy("shortcuts", sums)


def _differs(one: Calibration, other: Calibration) -> bool:
    return any(
        abs(each.amax - other.ranges[name].amax) > _SAME * other.ranges[name].amax
        for name, each in one.ranges.items()
    )


def _ranges(
    layer: LayerDamage, methods: Mapping[str, Calibration], calibration: Calibration
) -> Iterator[Remedy]:
    """Other methods for the input of a layer, one for each range that differs."""
    seen = [calibration.ranges[layer.tensor].amax]
    for method, each in methods.items():
        amax = each.ranges[layer.tensor].amax
        if all(abs(amax - other) > _SAME * other for other in seen):
            seen.append(amax)
            yield Remedy("range", (layer.layer,), method=method)


def _more(sources: BundleSources, held_out: Crops) -> Crops | None:
    """Twice as many calibration images, if the bundle has few and its image set holds more; else None."""
    images, recipe = sources.images, sources.quantizer.recipe
    used = images.calibration
    if used is None or len(used) >= _USUAL or sources.calibration.method == FILE:
        return None
    apart = [each for each in (images.validation, held_out) if each]
    with contextlib.suppress(ImageError):
        found = crops_step(
            sources.quantizer.steps,
            image_set(recipe, recipe.calibration.data, "calibration", None),
            recipe,
            count=min(2 * len(used), _USUAL),
            role="more calibration",
            apart_from=apart,
        )
        return found if len(found) > len(used) else None
    return None
