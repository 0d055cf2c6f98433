"""Every step of an export that gives files, in order."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import Crops
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.search.method import AUTO, SELECTION_IMAGES, Candidate, choose_method
from cnnx.pipeline.search.repair import REPAIR_IMAGES, put_back_reason, repair_step
from cnnx.pipeline.search.trials import in_fp16
from cnnx.pipeline.steps.artefacts import LAYERS, LOGITS
from cnnx.pipeline.steps.equalized import equalize_step
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import picture_sets
from cnnx.pipeline.steps.original import Batch, Original
from cnnx.pipeline.steps.ranges import calibration_step
from cnnx.pipeline.steps.reference import reference_step
from cnnx.pipeline.steps.statistics import statistics_step
from cnnx.pipeline.steps.typed_graph import graph_step
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
    chooses = job.precision == "int8" and job.method == AUTO
    selects = REPAIR_IMAGES if job.repair_trials else SELECTION_IMAGES if chooses else 0
    pictures = picture_sets(
        steps, recipe, validates=True, calibrates=job.precision != "fp32", selects=selects, labels=labels
    )
    validation, calibration, selection = pictures.validation, pictures.calibration, pictures.selection
    assert validation is not None
    reference = reference_step(steps, original, graph, validation, recipe)
    ranges, source = None, graph
    candidates: tuple[Candidate, ...] = ()
    if calibration:
        source, statistics = observe_pictures(steps, graph, calibration, recipe, precision=job.precision)
        # FP16 needs no ranges, only the maxima that say which layers would overflow.
        method = job.method if job.precision == "int8" else "max"
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


def observe_pictures(
    steps: Steps, graph: Entry, calibration: Crops, recipe: Recipe, *, precision: Precision
) -> tuple[Entry, Entry]:
    """The graph with its channels equalized, where that is asked, and what the pictures show of it."""
    source = graph
    if precision == "int8" and recipe.precision.equalize:
        source = equalize_step(steps, graph, calibration, recipe)
    return source, statistics_step(steps, source, calibration, recipe, precision=precision)


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
    reasons = {each.layer: put_back_reason(each) for each in found.put_back}
    recipe = in_fp16(job.recipe, reasons)
    typed = graph_step(steps, parts.source, parts.ranges, recipe, precision=job.precision, scales=job.scales)
    return dataclasses.replace(job, recipe=recipe), dataclasses.replace(parts, typed=typed), found
