"""`cnnx diagnose`: which INT8 layers do the damage, on pictures that neither calibrate nor validate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.agreement import flips_of, probabilities
from cnnx.bundle import Bundle
from cnnx.data.crops import Crops
from cnnx.errors import ImageError, UsageError
from cnnx.graph.inspect import Layer
from cnnx.graph.inspect import layers as inspect_layers
from cnnx.graph.load import load_model
from cnnx.options import takes
from cnnx.options.bundles import DiagnoseOptions
from cnnx.pipeline.diagnose.damage import Damage, coverages, damage_step, weights_lost
from cnnx.pipeline.diagnose.explain import read_findings
from cnnx.pipeline.diagnose.findings import (
    DiagnoseResult,
    Findings,
    FlippedImage,
    Guess,
    LayerDamage,
    OtherLayer,
)
from cnnx.pipeline.diagnose.rebuild import Remade, remake
from cnnx.pipeline.progress import Listener, Steps, silent
from cnnx.pipeline.steps.images import held_out
from cnnx.pipeline.target import open_subject
from cnnx.quant.coverage import Coverage

# Pictures below which a count of flips says little.
_FEW = 64


@takes(DiagnoseOptions)
def diagnose(bundle: str | Path, options: DiagnoseOptions, *, listener: Listener = silent) -> DiagnoseResult:
    """Rank the layers of an INT8 bundle by the damage that each does alone, and say what it looks like.

    The FP32 graph is made again by the steps of the export, from the cache where it still has them, and held
    to the bundle's graph. The findings are kept as a record.

    Args:
        bundle: its folder.
        options: as an object; each can be given by keyword, too. Layers are tried on images that neither
            calibrate nor validate, where any are left. Calibration and validation data say where the
            bundle's own images are now, should they have moved.
        listener: told of progress.

    Raises:
        UsageError: the bundle is not in INT8, or something it was made from has to be named.
        WeightsError: other weights were named.
        BundleError: it is not whole, or other pictures, or what is installed here, give another graph.
        WriteFailed: the record cannot be kept, which is told before any work.
    """
    opened = Bundle.open(Path(bundle))
    precision = opened.manifest.precision
    if precision != "int8":
        raise UsageError(
            f"the bundle is in {precision}: no layer of it is quantized",
            where=opened.path,
            hint="diagnose one that was exported with --int8",
        )
    opened.check_place("runs")
    if options.images < 1:
        raise UsageError(f"--images is {options.images}", hint="give at least 1; 512 is usual")
    steps = Steps(listener)
    remade = remake(opened, options, steps, calibration_data=options.calibration_data)
    crops, notes = _pictures(remade, steps, options.images)
    findings = _findings(opened, remade, crops, notes, images=options.images)
    record = opened.keep("diagnosis", open_subject(opened, runtimes.GRAPHS).subject, findings.as_dict())
    return DiagnoseResult(opened, findings, record, tuple(steps.times))


def _pictures(remade: Remade, steps: Steps, count: int) -> tuple[Crops, tuple[str, ...]]:
    """What layers are tried on, and what is to be said of it."""
    try:
        crops = held_out(steps, remade.quantizer.recipe, remade.pictures, count)
    except ImageError as error:
        assert remade.pictures.validation is not None
        return remade.pictures.validation, (
            f"No picture is held out ({error.what}): layers were tried on those that validate. "
            "What is changed because of it should be judged on others.",
        )
    few = len(crops) < min(count, _FEW)
    return crops, (
        f"Only {len(crops)} pictures are held out: small differences mean nothing.",
    ) if few else ()


def _findings(
    bundle: Bundle, remade: Remade, crops: Crops, notes: tuple[str, ...], *, images: int
) -> Findings:
    manifest, pixels = bundle.manifest, crops.pixels[:images]
    names = [layer["node"] for layer in manifest.layers if layer["precision"] == "int8"]
    damage = damage_step(remade.quantizer, remade.calibration, pixels, pictures=crops.key, layers=names)
    tensors = coverages(remade.quantizer, remade.calibration)
    rows = [row for row in inspect_layers(load_model(bundle.model)) if row.multiply_adds]
    findings = Findings(
        images=len(pixels),
        image_set=crops.name,
        floor=damage.floor,
        whole=damage.whole,
        layers=_layers(rows, damage, tensors, weights_lost(remade.quantizer, names), len(pixels)),
        others=_others(bundle, rows),
        tensors=tensors,
        flips=_flips(bundle.labels, damage, crops),
        notes=notes,
    )
    reading = read_findings(findings, recipe=remade.quantizer.recipe, calibration=remade.calibration)
    return dataclasses.replace(findings, reading=reading)


def _layers(
    rows: Sequence[Layer],
    damage: Damage,
    tensors: Sequence[Coverage],
    lost: Mapping[str, float],
    images: int,
) -> tuple[LayerDamage, ...]:
    """INT8 layers, the most damaging first."""
    reads = {layer: each.tensor for each in tensors for layer in each.read_by}
    shares = _shares(damage)
    found = [
        LayerDamage(
            layer=row.name,
            op=row.op,
            place=place,
            multiply_adds=row.multiply_adds,
            tensor=reads[row.name],
            likeness=damage.alone[row.name],
            flips=round((1 - damage.alone[row.name].top1_agreement) * images),
            share=shares[row.name],
            weights_lost=lost[row.name],
        )
        for place, row in enumerate(rows)
        if row.name in damage.alone
    ]
    return tuple(sorted(found, key=lambda each: (-each.likeness.divergence, each.place)))


def _shares(damage: Damage) -> dict[str, float]:
    """What each layer adds to the damage of FP16, over the sum of that; what is not finite outweighs all."""
    added = {
        layer: max(0.0, likeness.divergence - damage.floor.divergence)
        for layer, likeness in damage.alone.items()
    }
    if math.inf in added.values():
        added = {layer: float(each == math.inf) for layer, each in added.items()}
    total = sum(added.values())
    return {layer: each / total if total else 0.0 for layer, each in added.items()}


def _others(bundle: Bundle, rows: Sequence[Layer]) -> tuple[OtherLayer, ...]:
    plan = {layer["node"]: layer for layer in bundle.manifest.layers}
    return tuple(
        OtherLayer(row.name, row.op, place, row.data_type, plan[row.name]["reason"])
        for place, row in enumerate(rows)
        if plan[row.name]["precision"] != "int8"
    )


def _flips(labels: Sequence[str], damage: Damage, crops: Crops) -> tuple[FlippedImage, ...]:
    """Pictures whose first class changed, those first of which the original was surest."""
    count = len(damage.original)
    known = None if crops.labels is None else crops.labels[:count]
    ids = crops.ids[:count]
    place = {image: number for number, image in enumerate(ids)}
    before, after = probabilities(damage.original), probabilities(damage.int8)

    def guesses(classes: Sequence[int], of: NDArray[np.float64]) -> tuple[Guess, ...]:
        return tuple(Guess(each, labels[each] if labels else "", float(of[each])) for each in classes)

    found = [
        FlippedImage(
            image=flip.image,
            label=flip.label,
            original=guesses(flip.original, before[place[flip.image]]),
            int8=guesses(flip.engine, after[place[flip.image]]),
        )
        for flip in flips_of(damage.original, damage.int8, labels=known, ids=ids)
    ]
    return tuple(sorted(found, key=lambda each: (-each.original[0].probability, each.image)))
