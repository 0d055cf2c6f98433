"""Every step of an export that gives files, in order."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import Crops
from cnnx.data.images import ImageSet, Split
from cnnx.data.sets import BUILT_IN, open_images
from cnnx.errors import UsageError
from cnnx.labels import read_wnids
from cnnx.pipeline.calibrating import calibration_step, equalize_step, statistics_step
from cnnx.pipeline.original import Batch, Original
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.repairing import REPAIR_IMAGES, in_fp16, repair_step
from cnnx.pipeline.results import Candidate
from cnnx.pipeline.selection import AUTO, SELECTION_IMAGES, choose_method
from cnnx.pipeline.steps import LAYERS, LOGITS, crops_step, export_step, graph_step, reference_step
from cnnx.quant.repair import Repair
from cnnx.recipe import Precision, Recipe, Scales
from cnnx.runtimes import Runtime
from cnnx.store import Entry


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


def make_parts(job: Job, original: Original, steps: Steps, *, labels: Path | None) -> Parts:
    """Every step that gives files, in order."""
    recipe = job.recipe
    # First, for it is what refuses a definition, or weights, that are not what the recipe says.
    graph = export_step(steps, original, batch=job.batch)
    validation = crops_step(
        steps,
        _images(recipe, recipe.validation.data, "validation", labels),
        recipe,
        count=recipe.validation.images,
        role="validation",
    )
    chooses = job.precision == "int8" and job.method == AUTO
    selection = None
    if chooses or job.repair_trials:
        count = REPAIR_IMAGES if job.repair_trials else SELECTION_IMAGES
        selection = _selection(steps, recipe, validation, count)
    calibration = None
    if job.precision != "fp32":
        calibration = crops_step(
            steps,
            _images(recipe, recipe.calibration.data, "calibration", None),
            recipe,
            count=recipe.calibration.images,
            role="calibration",
            apart_from=[validation, selection] if selection else [validation],
        )
    reference = reference_step(steps, original, graph, validation, recipe)
    ranges, source = None, graph
    candidates: tuple[Candidate, ...] = ()
    if calibration:
        if job.precision == "int8" and recipe.precision.equalize:
            source = equalize_step(steps, graph, calibration, recipe)
        # FP16 needs no ranges, only the maxima that say which layers would overflow.
        method = job.method if job.precision == "int8" else "max"
        statistics = statistics_step(steps, source, calibration, recipe, precision=job.precision)
        if selection and chooses:
            candidates = choose_method(
                steps, source, statistics, calibration, selection, recipe, scales=job.scales
            )
            method = candidates[0].method
        ranges = calibration_step(steps, statistics, calibration, method=method)
    typed = graph_step(steps, source, ranges, recipe, precision=job.precision, scales=job.scales)
    return Parts(
        original, validation, calibration, selection, graph, source, reference, ranges, typed, candidates
    )


def repaired(job: Job, parts: Parts, steps: Steps) -> tuple[Job, Parts, Repair]:
    """What `--repair` came to, and the graph it left."""
    assert parts.ranges is not None and parts.selection is not None
    found = repair_step(
        steps,
        parts.source,
        parts.ranges,
        parts.selection,
        job.recipe,
        costs=parts.described["costs"],
        scales=job.scales,
        most=job.repair_trials,
        validation_images=len(parts.validation),
    )
    reasons = {
        each.layer: f"put back by repair: alone in INT8 it diverges by {each.alone:.2g} nats"
        for each in found.put_back
    }
    recipe = in_fp16(job.recipe, reasons)
    typed = graph_step(steps, parts.source, parts.ranges, recipe, precision=job.precision, scales=job.scales)
    return dataclasses.replace(job, recipe=recipe), dataclasses.replace(parts, typed=typed), found


def _selection(steps: Steps, recipe: Recipe, validation: Crops, count: int) -> Crops:
    """Pictures that choose; of a set without such pictures of its own at most a quarter."""
    images = _images(recipe, recipe.calibration.data, "selection", None)
    # A folder that also validates: those pictures are spoken for.
    same = recipe.calibration.data == recipe.validation.data and recipe.calibration.data not in BUILT_IN
    available = len(images) - (len(validation) if same else 0)
    if available < 2:
        raise UsageError(
            f"{available} pictures are left to calibrate with, none of them to choose by",
            where=recipe.calibration.data,
            mend="give more calibration pictures, or leave out --method auto and --repair",
        )
    return crops_step(
        steps,
        images,
        recipe,
        count=min(count, max(1, available // 4)),
        role="selection",
        apart_from=[validation],
    )


def _images(recipe: Recipe, data: str, split: Split, labels: Path | None) -> ImageSet:
    preprocessing, file = recipe.preprocessing, recipe.labels_file
    return open_images(
        data,
        labels=labels,
        size=preprocessing.resize,
        color=preprocessing.color,
        split=split,
        classes=recipe.model.classes,
        class_ids=read_wnids(file, recipe.model.classes) if file else None,
    )
