"""`diagnose`: ranks INT8 layers by damage, on images used neither for calibration nor for validation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from cnnx.pipeline.diagnose.advice import advised
from cnnx.pipeline.diagnose.damage import Damage, coverages, damage_step, weights_lost
from cnnx.pipeline.diagnose.explain import read_findings
from cnnx.pipeline.diagnose.findings import (
    Findings,
    FlippedImage,
    Guess,
    LayerDamage,
    OtherLayer,
)
from cnnx.pipeline.diagnose.rebuild import BundleSources, rebuild_sources
from cnnx.pipeline.diagnose.remedies import tried_remedies
from cnnx.pipeline.progress import Listener, Steps, StepTime, silent
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.pipeline.steps.images import held_out
from cnnx.pipeline.target import open_subject
from cnnx.quant.coverage import Coverage
from cnnx.record import Record
from cnnx.report.result import Result
from cnnx.report.table import Block

# With fewer images than this, a number of flips means little.
_FEW = 64
_IMAGES = 512
# At this divergence, in nats, hardly an image changes its class, and nothing needs a remedy.
_SOUND = 5e-4


@dataclass(frozen=True, slots=True, repr=False)
class DiagnoseResult(Result):
    """The findings, and their record."""

    bundle: Bundle
    findings: Findings
    record: Record
    steps: tuple[StepTime, ...]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        from cnnx.report.tables.damage import damage_blocks

        return damage_blocks(self.findings.as_dict(), whole=verbose)


@takes(DiagnoseOptions)
def diagnose(bundle: str | Path, options: DiagnoseOptions, *, listener: Listener = silent) -> DiagnoseResult:
    """Rank the layers of an INT8 bundle by the damage that each does alone, and explain it.

    Rebuilds the FP32 graph with the steps of the export, reusing cached results, and checks that the
    bundle's graph follows from it. The findings are kept as a record.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword. Layers are tried on images used
            neither for calibration nor for validation, if any are left. Calibration and validation data
            locate the bundle's own images if they have moved.
        listener: receives progress events.

    Raises:
        UsageError: the bundle is not in INT8, or one of its sources must be given.
        WeightsError: the given weights are not the bundle's.
        BundleError: the bundle is damaged, or the images or packages here give a different graph.
        WriteFailed: the record cannot be written; raised before any work.

    Examples:
        >>> result = cnnx.diagnose("lenet5-int8", images=32)
        >>> len(result.findings.layers)
        5
        >>> round(sum(layer.share for layer in result.findings.layers), 6)
        1.0
    """
    opened = open_bundle(Path(bundle), options.require_signature)
    precision = opened.manifest.precision
    if precision != "int8":
        raise UsageError(
            f"the bundle is in {precision}, so no layer is quantized",
            where=opened.path,
            hint="give a bundle that was exported with --int8",
        )
    opened.check_place("runs")
    count = _IMAGES if options.images is None else options.images
    if count < 1:
        raise UsageError(
            f"invalid --images {count}: expected at least 1", hint="give --images 512, for example"
        )
    steps = Steps(listener)
    sources = rebuild_sources(opened, options, steps, calibration_data=options.calibration_data)
    crops, notes = _held_out_images(sources, steps, count)
    findings = _findings(opened, sources, crops, notes, images=count)
    findings = _with_advice(findings, opened, sources, crops, options)
    record = opened.keep("diagnosis", open_subject(opened, runtimes.GRAPHS).subject, findings.as_dict())
    return DiagnoseResult(opened, findings, record, tuple(steps.times))


def _held_out_images(sources: BundleSources, steps: Steps, count: int) -> tuple[Crops, tuple[str, ...]]:
    """The images to try layers on, and notes about them."""
    try:
        crops = held_out(steps, sources.quantizer.recipe, sources.images, count)
    except ImageError as error:
        assert sources.images.validation is not None
        return sources.images.validation, (
            f"No image is held out ({error.what}), so layers were tried on the validation images. "
            "Validate any change that follows from this on different images.",
        )
    few = len(crops) < min(count, _FEW)
    return crops, (f"Only {len(crops)} images are held out: small differences mean nothing.",) if few else ()


def _findings(
    bundle: Bundle, sources: BundleSources, crops: Crops, notes: tuple[str, ...], *, images: int
) -> Findings:
    manifest, pixels = bundle.manifest, crops.pixels[:images]
    names = [layer["node"] for layer in manifest.layers if layer["precision"] == "int8"]
    damage = damage_step(sources.quantizer, sources.calibration, pixels, crops_key=crops.key, layers=names)
    tensors = coverages(sources.quantizer, sources.calibration)
    lost = weights_lost(sources.quantizer, sources.calibration, names)
    rows = [row for row in inspect_layers(load_model(bundle.model)) if row.multiply_adds]
    return Findings(
        images=len(pixels),
        image_set=crops.name,
        floor=damage.floor,
        whole=damage.whole,
        multiply_adds=sum(row.multiply_adds for row in rows),
        layers=_layers(rows, damage, tensors, lost, len(pixels)),
        others=_others(bundle, rows),
        tensors=tensors,
        flips=_flips(bundle.labels, damage, crops),
        notes=notes,
    )


def _with_advice(
    findings: Findings, bundle: Bundle, sources: BundleSources, crops: Crops, options: DiagnoseOptions
) -> Findings:
    """The findings with the remedies that were tried, the one that is advised, and the explanation."""
    recipe, method = sources.quantizer.recipe, sources.calibration.method
    if findings.whole.divergence > _SOUND and findings.layers[0].share > 0:
        trials, place, reaches = tried_remedies(sources, findings.layers, crops, findings.images)
        advice = None
        if place is not None:
            advice = advised(
                trials,
                place,
                reaches=reaches,
                bundle=bundle,
                recipe=recipe,
                method=method,
                options=options,
                images=findings.images,
            )
        findings = dataclasses.replace(findings, remedies=trials, advice=advice)
    reading = read_findings(findings, recipe=recipe, calibration=sources.calibration)
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
    """Each layer's share of the damage that layers add to that of FP16; infinite damage outweighs all."""
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
    """Images whose top class changed, sorted by the original's confidence, highest first."""
    count = len(damage.original)
    known = None if crops.labels is None else crops.labels[:count]
    ids = crops.ids[:count]
    index = {image: number for number, image in enumerate(ids)}
    before, after = probabilities(damage.original), probabilities(damage.int8)

    def guesses(classes: Sequence[int], of: NDArray[np.float64]) -> tuple[Guess, ...]:
        return tuple(Guess(each, labels[each] if labels else "", float(of[each])) for each in classes)

    found = [
        FlippedImage(
            image=flip.image,
            label=flip.label,
            original=guesses(flip.original, before[index[flip.image]]),
            int8=guesses(flip.engine, after[index[flip.image]]),
        )
        for flip in flips_of(damage.original, damage.int8, labels=known, ids=ids)
    ]
    return tuple(sorted(found, key=lambda each: (-each.original[0].probability, each.image)))
