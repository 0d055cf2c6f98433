"""The job of an export, and its steps in order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import Crops
from cnnx.errors import ImageError
from cnnx.options import Batch, Precision, Scales
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.method import AUTO, SELECTION_IMAGES, Candidate, choose_method
from cnnx.pipeline.search.remedies import REMEDY_IMAGES, Kept, remedies_step
from cnnx.pipeline.search.repair import REPAIR_IMAGES, put_back_reason, repair_step
from cnnx.pipeline.source import source_files
from cnnx.pipeline.steps.artefacts import Fp32Graph, Ranges, ReferenceLogits, TypedGraph
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import ImagesByRole, held_out, images_by_role
from cnnx.pipeline.steps.original import OnnxOriginal, Original, open_reference
from cnnx.pipeline.steps.reference import judge_step, reference_step
from cnnx.pipeline.steps.typed_graph import graph_step
from cnnx.quant.methods import FILE
from cnnx.quant.repair import Repair
from cnnx.recipe import Recipe
from cnnx.runtimes import Runtime


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """The options of one export, defaults filled in from its recipe.

    Attributes:
        repair_trials: maximum number of trials; 0: no repair.
        with_source: whether the bundle also holds what its graph is made from.
        notes: notes about the recipe, for the user.
    """

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
    with_source: bool = False
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ExportArtefacts:
    """The results of the steps, ready for a bundle.

    Attributes:
        original: the original network.
        validation: validation images.
        calibration: calibration images; None in FP32, which needs none.
        selection: selection images; None if nothing was selected.
        graph: FP32 graph as exported.
        reference: the logits to judge by for the validation images.
        judge: the network that gave them; None: the original.
        quantizer: what typed the graph; None in FP32.
        ranges: ranges the graph was typed by; None in FP32.
        typed: typed or Q/DQ graph.
        candidates: all methods compared, the chosen one first; empty unless the method is "auto".
        tried: held-out images that changes were tried on; None if none were, or they are `selection`.
        kept: the changes that export keeps; None if none do.
    """

    original: Original
    validation: Crops
    calibration: Crops | None
    selection: Crops | None
    graph: Fp32Graph
    reference: ReferenceLogits
    judge: OnnxOriginal | None
    quantizer: Quantizer | None
    ranges: Ranges | None
    typed: TypedGraph
    candidates: tuple[Candidate, ...]
    tried: Crops | None = None
    kept: Kept | None = None

    @property
    def described(self) -> dict[str, Any]:
        """The plan of the typed graph's layers; see `TypedGraph.described`."""
        return self.typed.described

    def source_files(self) -> dict[str, Path]:
        """The files of the bundle's source; see `cnnx.pipeline.source`."""
        return source_files(self.graph, self.quantizer, self.ranges)

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits to judge by, for the validation images."""
        return self.reference.logits


def images_to_choose_by(precision: Precision, method: str, repair_trials: int) -> int:
    """Maximum number of selection images, for `--method auto` or repair; 0 if nothing is selected."""
    if repair_trials:
        return REPAIR_IMAGES
    return SELECTION_IMAGES if precision == "int8" and method == AUTO else 0


def make_artefacts(job: Job, original: Original, steps: Steps) -> ExportArtefacts:
    """Run the steps of an export in order, up to the typed graph."""
    recipe = job.recipe
    # First, as it checks the definition and the weights against the recipe.
    graph = export_step(steps, original, batch=job.batch)
    chooses = job.precision == "int8" and job.method == AUTO
    images = images_by_role(
        steps,
        recipe,
        validates=True,
        calibrates=job.precision != "fp32",
        selects=images_to_choose_by(job.precision, job.method, job.repair_trials),
        labels=job.labels,
    )
    validation, calibration, selection = images.validation, images.calibration, images.selection
    assert validation is not None
    reference = reference_step(steps, original, graph, validation, recipe)
    judge = open_reference(recipe)
    if judge is not None:
        reference = judge_step(steps, judge, validation, recipe)
    sets = (original, validation, calibration, selection, graph, reference, judge)
    if calibration is None:
        typed = graph_step(steps, graph, None, recipe, precision=job.precision, scales=job.scales)
        return ExportArtefacts(*sets, None, None, typed, ())
    quantizer = Quantizer.observe(
        steps, graph, calibration, recipe, precision=job.precision, scales=job.scales
    )
    candidates = choose_method(quantizer, selection) if selection and chooses else ()
    # FP16 needs no ranges, only the maxima, to find layers that would overflow.
    method = candidates[0].method if candidates else job.method if job.precision == "int8" else "max"
    ranges = quantizer.ranges(method)
    return ExportArtefacts(*sets, quantizer, ranges, quantizer.typed(ranges), candidates)


def remedied(job: Job, artefacts: ExportArtefacts, steps: Steps) -> tuple[Job, ExportArtefacts]:
    """The job and the graph with the changes that pay on held-out images, if the INT8 graph needs any.

    Nothing is tried with a file's own scales, with stand-in weights, or without enough images.
    """
    quantizer, ranges = artefacts.quantizer, artefacts.ranges
    off = job.precision != "int8" or job.method == FILE or not job.recipe.precision.remedies
    if off or quantizer is None or ranges is None or artefacts.original.weights.kind == "standin":
        return job, artefacts
    images, costs = artefacts.selection, artefacts.described["costs"]
    if images is None:
        used = ImagesByRole(artefacts.validation, artefacts.calibration, None)
        try:
            images = held_out(steps, job.recipe, used, REMEDY_IMAGES)
        except ImageError:
            return job, artefacts
    if 4 * len(images) < REMEDY_IMAGES or not costs:
        return job, artefacts
    found = remedies_step(
        quantizer,
        ranges,
        images,
        costs=costs,
        share=artefacts.described["int8_share"],
        validation_images=len(artefacts.validation),
    )
    if not found.remedies:
        return job, artefacts
    recipe = found.applied(job.recipe)
    quantizer = dataclasses.replace(quantizer, recipe=recipe)
    artefacts = dataclasses.replace(
        artefacts,
        quantizer=quantizer,
        typed=quantizer.typed(ranges),
        tried=None if artefacts.selection else images,
        kept=found,
    )
    return dataclasses.replace(job, recipe=recipe), artefacts


def repaired(job: Job, artefacts: ExportArtefacts) -> tuple[Job, ExportArtefacts, Repair]:
    """Run `--repair`; return the job with its new recipe, the repaired graph, and what repair found."""
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
