"""Runs the original and its FP32 graph on the nodes of a fleet; see `cnnx.pipeline.runs.Runs`."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import Crops
from cnnx.errors import EnvironmentLacks, MissingExtra
from cnnx.options import Batch, Precision
from cnnx.pipeline.fleet.shards.fleet import Fleet, Work, facts_of
from cnnx.pipeline.fleet.shards.kept import Part, unreadable
from cnnx.pipeline.fleet.shards.parts import RECIPE, SHARD, WEIGHTS
from cnnx.pipeline.fleet.shards.statistics import FleetStatistics
from cnnx.pipeline.fleet.work.job import EXPORT, Job
from cnnx.pipeline.preconditions.refusals import refuse_without_torch
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import LOGITS, MODEL, NOTES, Fp32Graph, Statistics
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.inference import LOGITS_BATCH, refuse_nonfinite
from cnnx.pipeline.steps.original import OnnxOriginal, Original, TorchOriginal
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code


class FleetRuns:
    """The nodes of a fleet: those with PyTorch run the original, those of a device its graph.

    Args:
        fleet: the nodes.
        device: device of the subject, whose nodes run the FP32 graph for the noise floor.
        statistics: runs calibration images; None in a validation, which has none.
    """

    def __init__(self, fleet: Fleet, device: str, statistics: FleetStatistics | None = None) -> None:
        self._fleet, self._device, self._statistics = fleet, device, statistics

    def check_torch(self) -> None:
        """Raise if no node has PyTorch.

        Raises:
            EnvironmentLacks: none has.
        """
        if not self._fleet.offering(EXPORT):
            raise EnvironmentLacks(
                "the original needs PyTorch, and no node of the fleet has it",
                hint="join a machine on which cnnx is installed with its extra export; see docs/fleet.md",
            )

    def graph(self, steps: Steps, original: Original, *, batch: Batch) -> Fp32Graph:
        """Export the graph here if PyTorch is, or is not needed; else on a node."""
        if not isinstance(original, TorchOriginal) or _has_torch():
            return export_step(steps, original, batch=batch)
        arguments, files = _described(original)
        job = Job(
            f"FP32 graph of {original.recipe.name}",
            task="fp32_graph",
            arguments={**arguments, "batch": list(batch)},
            files=files,
            needs=EXPORT,
        )
        inputs = {
            "original": original.key(),
            "batch": batch,
            "code": own_code(__name__, *original.modules),
            "nodes": facts_of(self._fleet.offering(EXPORT)),
        }

        def fill(folder: Path, _: Progress) -> None:
            for answer in self._fleet.one(job):
                for name in (MODEL, NOTES):
                    shutil.copyfile(answer.folder / name, folder / name)

        return Fp32Graph(steps.make("ONNX graph", "export", inputs, fill))

    def original(self, steps: Steps, original: Original, crops: Crops, recipe: Recipe) -> NDArray[np.float32]:
        """Run a PyTorch definition on nodes that have it; an ONNX file there too, or on the device's."""
        if isinstance(original, TorchOriginal):
            arguments, files = _described(original)
            work = logits_work(
                "original", "original_logits", arguments, files, needs=EXPORT, classes=recipe.model.classes
            )
        else:
            assert isinstance(original, OnnxOriginal)
            needs = EXPORT if self._fleet.offering(EXPORT) else self._device
            work = graph_work("original", original.graph.model, recipe, needs=needs)
        logits = steps.run(
            "original's logits", lambda progress: logits_by(self._fleet, work, crops.pixels, progress)
        )
        refuse_nonfinite(logits, recipe)
        return logits

    def floor(self, steps: Steps, graph: Fp32Graph, crops: Crops, recipe: Recipe) -> NDArray[np.float32]:
        """Run the graph on nodes of the subject's device."""
        work = graph_work("floor", graph.model, recipe, needs=self._device)
        return steps.run("noise floor", lambda progress: logits_by(self._fleet, work, crops.pixels, progress))

    def statistics(
        self,
        steps: Steps,
        graph: Fp32Graph,
        crops: Crops,
        recipe: Recipe,
        *,
        precision: Precision,
        parts: Sequence[Statistics] = (),
        title: str = "calibration images through the graph",
    ) -> Statistics:
        """Run calibration images through the graph; see `FleetStatistics`."""
        assert self._statistics is not None
        if parts:
            return self._statistics.merge(steps, graph, crops, recipe, precision=precision, parts=parts)
        return self._statistics.observe(steps, graph, crops, recipe, precision=precision, title=title)


def logits_work(
    name: str, task: str, arguments: Mapping[str, Any], files: Mapping[str, Path], *, needs: str, classes: int
) -> Work:
    """Work that gives logits, (images, classes)."""

    def read(part: Part, name: str, images: int) -> NDArray[np.float32]:
        logits = _logits(part, name)
        if logits.shape != (images, classes):
            expected = (images, classes)
            raise unreadable(part.node.name, f"{name} has the shape {logits.shape}, not {expected}")
        return logits

    return Work(name, task, arguments, files, needs, read, LOGITS)


def graph_work(name: str, model: Path, recipe: Recipe, *, needs: str) -> Work:
    """Work that runs an FP32 graph."""
    arguments, classes = {"recipe": recipe.as_dict()}, recipe.model.classes
    return logits_work(name, "graph_logits", arguments, {MODEL: model}, needs=needs, classes=classes)


def logits_by(fleet: Fleet, work: Work, pixels: NDArray[np.uint8], progress: Progress) -> NDArray[np.float32]:
    """The logits of all images, (N, classes), in their order.

    Raises:
        JobsLost: no node could do some of them.
        EnvironmentLacks: an answer cannot be read.
    """
    parts = fleet.run(work, pixels, batch=LOGITS_BATCH, progress=progress)
    return np.concatenate([work.read(part, f"{SHARD}/{LOGITS}", len(shard)) for shard, part in parts])


def _logits(part: Part, name: str) -> NDArray[np.float32]:
    try:
        # Not np.load, which also takes archives.
        logits: NDArray[np.float32] = np.lib.format.read_array(
            io.BytesIO(part.file(name)), allow_pickle=False
        )
    except (ValueError, EOFError, OSError) as error:
        raise unreadable(part.node.name, f"{name}: {error}") from None
    if logits.dtype != np.float32:
        raise unreadable(part.node.name, f"{name} has the type {logits.dtype}")
    return logits


def _described(original: TorchOriginal) -> tuple[dict[str, Any], dict[str, Path]]:
    """The arguments and files by which a node builds a PyTorch definition; see `parts.torch_original`."""
    recipe, weights, files = original.recipe, original.weights, dict[str, Path]()
    if recipe.runs_user_code:
        file, _, name = recipe.model.definition.partition(":")
        code = recipe.folder / file
        files[f"{RECIPE}/{code.name}"] = code
        spec = dataclasses.replace(recipe.model, definition=f"{code.name}:{name}")
        recipe = dataclasses.replace(recipe, model=spec)
    if weights.file is not None:
        files[f"{WEIGHTS}/{weights.file.name}"] = weights.file
    described = {
        "kind": weights.kind,
        "origin": weights.origin,
        "digest": weights.digest,
        "file": None if weights.file is None else weights.file.name,
    }
    plain = json.loads(json.dumps(recipe.as_dict()))
    return {"recipe": plain, "weights": described, "trusted": original.trusted}, files


def _has_torch() -> bool:
    try:
        refuse_without_torch()
    except MissingExtra:
        return False
    return True
