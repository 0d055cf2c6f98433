"""Writes the results of an export's steps as a bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cnnx.bundle import CALIBRATION, LABELS, MODEL, REFERENCE, Bundle, is_bundle
from cnnx.bundle.manifest import ImageList, Manifest, TensorInfo
from cnnx.bundle.reference import Reference, self_test_places
from cnnx.bundle.writing import new_bundle, seal
from cnnx.data.class_names import class_names
from cnnx.data.crops import Crops
from cnnx.data.resampling import opencv_version
from cnnx.errors import BundleError
from cnnx.machine.environment import installed_version
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.inference import graph_logits
from cnnx.recipe import Recipe
from cnnx.store.digests import digest_of
from cnnx.store.own_code import own_code

if TYPE_CHECKING:  # not needed for the fingerprint: artefacts have keys of their own
    from cnnx.pipeline.export.job import ExportArtefacts, Job

_TOOLS = ("cnnx", "numpy", "onnx", "onnxruntime", "onnxscript", "pillow", "torch")


def publish(
    job: Job, artefacts: ExportArtefacts, steps: Steps, *, force: bool = False
) -> tuple[Bundle, bool]:
    """Write the bundle, unless one made from exactly these inputs exists at its path.

    Returns:
        the bundle, and whether it existed.
    """
    manifest = _manifest(job, artefacts)
    if is_bundle(job.out):
        with contextlib.suppress(BundleError):  # new_bundle replaces or refuses a damaged one
            existing = Bundle.open(job.out)
            if existing.manifest.fingerprint == manifest.fingerprint:
                return existing, True
    reference = steps.run("self-test", lambda progress: _reference(job, artefacts, progress))

    def work(_: Progress) -> Bundle:
        with new_bundle(job.out, force=force) as draft:
            _fill(draft, job, artefacts, reference)
            seal(draft, manifest)
        return Bundle.open(job.out, verify=False)

    return steps.run("bundle", work), False


def _reference(job: Job, artefacts: ExportArtefacts, progress: Progress) -> Reference:
    """The self-test: some validation images with the logits of the original and of the typed graph."""
    crops, logits = artefacts.validation, artefacts.logits
    indices = self_test_places(len(crops), crops.pixels[0].nbytes + 2 * logits[0].nbytes)
    chosen = crops.only(indices)
    return Reference(
        crops=chosen.pixels,
        original=logits[indices],
        graph=graph_logits(
            artefacts.typed.model,
            chosen.pixels,
            job.recipe.preprocessing,
            form=job.recipe.input_format,
            progress=progress,
        ),
        labels=chosen.labels,
        ids=chosen.ids,
        used=tuple(
            digest
            for used in (artefacts.calibration, artefacts.selection, artefacts.tried)
            if used
            for digest in used.digests
        ),
    )


def _fill(draft: Path, job: Job, artefacts: ExportArtefacts, reference: Reference) -> None:
    shutil.copyfile(artefacts.typed.model, draft / MODEL)
    if artefacts.ranges:
        shutil.copyfile(artefacts.ranges.file, draft / CALIBRATION)
    reference.save(draft / REFERENCE)
    for name, file in artefacts.source_files().items() if job.with_source else ():
        shutil.copyfile(file, draft / name)
    if names := class_names(job.recipe):
        (draft / LABELS).write_text("\n".join(names) + "\n", encoding="utf-8")


def _manifest(job: Job, artefacts: ExportArtefacts) -> Manifest:
    recipe, weights, form = job.recipe, artefacts.original.weights, job.recipe.input_format
    described, shape = artefacts.described, form.shape(recipe.input.shape)
    batch = job.batch[0] if job.batch[0] == job.batch[1] else None
    images = {"validation": _listed(artefacts.validation)}
    if artefacts.calibration:
        images["calibration"] = _listed(artefacts.calibration)
    if artefacts.selection:
        images["selection"] = _listed(artefacts.selection)
    manifest = Manifest(
        name=f"{recipe.name}-{job.precision}",
        precision=job.precision,
        fingerprint="",
        recipe=_portable(recipe).as_dict(),
        weights={"kind": weights.kind, "origin": weights.origin, "digest": weights.digest},
        inputs=(TensorInfo(recipe.input.name, form.type, (batch, *shape), form.layout),),
        outputs=(TensorInfo(described["output"], "float32", (batch, recipe.model.classes), "NC"),),
        batch=job.batch,
        classes=recipe.model.classes,
        scales=job.scales,
        images=images,
        layers=tuple(described["layers"]),
        warnings=tuple(described["warnings"]),
        notes=artefacts.typed.input_notes,
        versions={
            **{name: version for name in _TOOLS if (version := installed_version(name))},
            **opencv_version(recipe.preprocessing),
        },
        reference=None
        if artefacts.judge is None
        else {"origin": artefacts.judge.weights.origin, "digest": artefacts.judge.weights.digest},
    )
    inputs = {
        "manifest": manifest.as_dict(),
        "graph": artefacts.typed.key,
        "reference": artefacts.reference.key,
        "labels": class_names(recipe),
        "source": job.with_source,
        "code": own_code("cnnx.agreement", "cnnx.bundle", "cnnx.pipeline.export.publish"),
    }
    return dataclasses.replace(manifest, fingerprint=digest_of(inputs))


def _portable(recipe: Recipe) -> Recipe:
    """The recipe without folders of files that options named: a manifest must not depend on the machine.

    The class names themselves are in the bundle.
    """
    labels, reference = (
        Path(path).name if Path(path).is_absolute() else path
        for path in (recipe.model.labels, recipe.model.reference)
    )
    model = dataclasses.replace(recipe.model, labels=labels, reference=reference)
    return dataclasses.replace(recipe, model=model)


def _listed(crops: Crops) -> ImageList:
    skipped = tuple(f"{each.id}: {each.reason}" for each in crops.skipped)
    return ImageList(crops.name, crops.source, len(crops), crops.list_digest, crops.synthetic, skipped)
