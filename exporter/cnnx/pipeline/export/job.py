"""Every step of an export that gives files, in order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import Crops
from cnnx.options import Batch, Precision, Scales
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.method import AUTO, SELECTION_IMAGES, Candidate, choose_method
from cnnx.pipeline.search.repair import REPAIR_IMAGES, put_back_reason, repair_step
from cnnx.pipeline.steps.artefacts import Fp32Graph, Ranges, ReferenceLogits, TypedGraph
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import images_by_role
from cnnx.pipeline.steps.original import Original
from cnnx.pipeline.steps.reference import reference_step
from cnnx.pipeline.steps.typed_graph import graph_step
from cnnx.quant.repair import Repair
from cnnx.recipe import Recipe
from cnnx.runtimes import Runtime


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
    labels: Path | None


@dataclasses.dataclass(frozen=True, slots=True)
class ExportArtefacts:
    """What the steps left, ready to be put into a bundle.

    Attributes:
        graph: as exported.
        quantizer: what typed it from calibration images; None in FP32, which needs none.
        ranges: that it was quantized by; likewise.
    """

    original: Original
    validation: Crops
    calibration: Crops | None
    selection: Crops | None
    graph: Fp32Graph
    reference: ReferenceLogits
    quantizer: Quantizer | None
    ranges: Ranges | None
    typed: TypedGraph
    candidates: tuple[Candidate, ...]

    @property
    def described(self) -> dict[str, Any]:
        """The plan of the typed graph's layers."""
        return self.typed.described

    @property
    def logits(self) -> NDArray[np.float32]:
        """The original's, for the validation images."""
        return self.reference.logits


def images_to_choose_by(precision: Precision, method: str, repair_trials: int) -> int:
    """Maximum number of images that choose a method, or what repair puts back; 0 where nothing is chosen."""
    if repair_trials:
        return REPAIR_IMAGES
    return SELECTION_IMAGES if precision == "int8" and method == AUTO else 0


def make_artefacts(job: Job, original: Original, steps: Steps) -> ExportArtefacts:
    """Every step that gives files, in order."""
    recipe = job.recipe
    # First, for it is what refuses a definition, or weights, that are not what the recipe says.
    graph = export_step(steps, original, batch=job.batch)
    chooses = job.precision == "int8" and job.method == AUTO
    pictures = images_by_role(
        steps,
        recipe,
        validates=True,
        calibrates=job.precision != "fp32",
        selects=images_to_choose_by(job.precision, job.method, job.repair_trials),
        labels=job.labels,
    )
    validation, calibration, selection = pictures.validation, pictures.calibration, pictures.selection
    assert validation is not None
    reference = reference_step(steps, original, graph, validation, recipe)
    sets = (original, validation, calibration, selection, graph, reference)
    if calibration is None:
        typed = graph_step(steps, graph, None, recipe, precision=job.precision, scales=job.scales)
        return ExportArtefacts(*sets, None, None, typed, ())
    quantizer = Quantizer.observe(
        steps, graph, calibration, recipe, precision=job.precision, scales=job.scales
    )
    candidates = choose_method(quantizer, selection) if selection and chooses else ()
    # FP16 needs no ranges, only the maxima that say which layers would overflow.
    method = candidates[0].method if candidates else job.method if job.precision == "int8" else "max"
    ranges = quantizer.ranges(method)
    return ExportArtefacts(*sets, quantizer, ranges, quantizer.typed(ranges), candidates)


def repaired(job: Job, artefacts: ExportArtefacts) -> tuple[Job, ExportArtefacts, Repair]:
    """What `--repair` came to, and the graph it left."""
    assert (
        artefacts.quantizer is not None and artefacts.ranges is not None and artefacts.selection is not None
    )
    found = repair_step(
        artefacts.quantizer,
        artefacts.ranges,
        artefacts.selection,
        costs=artefacts.described["costs"],
        most=job.repair_trials,
        validation_images=len(artefacts.validation),
    )
    quantizer = artefacts.quantizer.with_fp16({each.layer: put_back_reason(each) for each in found.put_back})
    artefacts = dataclasses.replace(artefacts, quantizer=quantizer, typed=quantizer.typed(artefacts.ranges))
    return dataclasses.replace(job, recipe=quantizer.recipe), artefacts, found
