"""From what the steps left to a bundle in its place."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.bundle import (
    CALIBRATION,
    LABELS,
    MODEL,
    REFERENCE,
    Bundle,
    ImageList,
    Manifest,
    Reference,
    TensorInfo,
    is_bundle,
    new_bundle,
    seal,
)
from cnnx.data.crops import Crops
from cnnx.environment import installed_version
from cnnx.errors import BundleError
from cnnx.labels import read_labels
from cnnx.pipeline.original import Batch, Original
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.results import Candidate
from cnnx.pipeline.steps import LAYERS, LOGITS, RANGES
from cnnx.pipeline.steps import MODEL as STEP_MODEL
from cnnx.recipe import Precision, Recipe, Scales
from cnnx.runtimes import Runtime
from cnnx.store import Entry, code_digest, digest_of

_TOOLS = ("cnnx", "numpy", "onnx", "onnxruntime", "onnxscript", "pillow", "torch")


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """The options of one export, defaults filled in from its recipe; `repair_trials` 0: no repair."""

    recipe: Recipe
    precision: Precision
    scales: Scales
    batch: Batch
    method: str
    out: Path
    runtime: Runtime
    sm: tuple[int, ...]
    repair_trials: int


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What the steps left, ready to be put into a bundle.

    Attributes:
        graph: as exported.
        source: the FP32 graph that was typed or quantized; `graph` with its channels equalized, or itself.
    """

    original: Original
    validation: Crops
    calibration: Crops | None
    selection: Crops | None
    graph: Entry
    source: Entry
    reference: Entry
    ranges: Entry | None
    typed: Entry
    candidates: tuple[Candidate, ...]

    @property
    def described(self) -> dict[str, Any]:
        """What typing the graph left to say of its layers."""
        described: dict[str, Any] = json.loads((self.typed.folder / LAYERS).read_text(encoding="utf-8"))
        return described

    @property
    def logits(self) -> NDArray[np.float32]:
        """The original's, for the validation pictures."""
        logits: NDArray[np.float32] = np.load(self.reference.folder / LOGITS, allow_pickle=False)
        return logits


def publish(job: Job, parts: Parts, steps: Steps) -> tuple[Bundle, bool]:
    """The bundle at its place, and whether it stood there already, made from exactly these inputs."""
    manifest = _manifest(job, parts)
    if is_bundle(job.out):
        with contextlib.suppress(BundleError):  # a damaged one is replaced
            standing = Bundle.open(job.out)
            if standing.manifest.fingerprint == manifest.fingerprint:
                return standing, True

    def work(_: Progress) -> Bundle:
        with new_bundle(job.out) as draft:
            _fill(draft, job, parts)
            seal(draft, manifest)
        return Bundle.open(job.out, verify=False)

    return steps.run("bundle", work), False


def _fill(draft: Path, job: Job, parts: Parts) -> None:
    shutil.copyfile(parts.typed.folder / STEP_MODEL, draft / MODEL)
    if parts.ranges:
        shutil.copyfile(parts.ranges.folder / RANGES, draft / CALIBRATION)
    crops = parts.validation
    Reference(crops.pixels, parts.logits, crops.labels, crops.ids).save(draft / REFERENCE)
    if names := class_names(job.recipe):
        (draft / LABELS).write_text("\n".join(names) + "\n", encoding="utf-8")


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the recipe's classes, where it has any.

    Raises:
        RecipeError: see `cnnx.labels.read_labels`.
    """
    file = recipe.labels_file
    return read_labels(file, recipe.model.classes) if file else ()


def _manifest(job: Job, parts: Parts) -> Manifest:
    recipe, weights = job.recipe, parts.original.weights
    described = parts.described
    batch = job.batch[0] if job.batch[0] == job.batch[1] else None
    images = {"validation": _listed(parts.validation)}
    if parts.calibration:
        images["calibration"] = _listed(parts.calibration)
    if parts.selection:
        images["selection"] = _listed(parts.selection)
    manifest = Manifest(
        name=f"{recipe.name}-{job.precision}",
        precision=job.precision,
        fingerprint="",
        recipe=recipe.as_dict(),
        weights={"kind": weights.kind, "origin": weights.origin, "digest": weights.digest},
        inputs=(TensorInfo(recipe.input.name, "float32", (batch, *recipe.input.shape), "NCHW"),),
        outputs=(TensorInfo(described["output"], "float32", (batch, recipe.model.classes), "NC"),),
        batch=job.batch,
        classes=recipe.model.classes,
        scales=job.scales,
        images=images,
        layers=tuple(described["layers"]),
        warnings=tuple(described["warnings"]),
        versions={name: version for name in _TOOLS if (version := installed_version(name))},
    )
    inputs = {
        "manifest": manifest.as_dict(),
        "graph": parts.typed.key,
        "reference": parts.reference.key,
        "labels": class_names(recipe),
        "code": code_digest("cnnx.bundle", "cnnx.agreement"),
    }
    return dataclasses.replace(manifest, fingerprint=digest_of(inputs))


def _listed(crops: Crops) -> ImageList:
    skipped = tuple(f"{each.id}: {each.reason}" for each in crops.skipped)
    return ImageList(crops.name, crops.source, len(crops), crops.list_digest, crops.synthetic, skipped)
