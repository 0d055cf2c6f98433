"""`--repair`: layers that INT8 harms go back to FP16, chosen by the selection pictures."""

from __future__ import annotations

import dataclasses
import glob
import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Likeness, compare
from cnnx.data.crops import Crops
from cnnx.environment import installed_version
from cnnx.pipeline.original import open_here
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps import MODEL, logits_of, read_calibration, type_graph
from cnnx.quant.repair import Outcome, PutBack, Repair, repair
from cnnx.recipe import LayerOverride, Recipe, Scales, Thresholds
from cnnx.stats import Verdict, wilson
from cnnx.store import Entry, atomic_file, code_digest

IMAGES = 512
"""Pictures that choose what goes back. They are neither calibrated on nor validated with."""

_FILE = "repair.json"


def repair_step(
    steps: Steps,
    graph: Entry,
    ranges: Entry,
    selection: Crops,
    recipe: Recipe,
    *,
    costs: Mapping[str, int],
    scales: Scales,
    most: int,
) -> Repair:
    """The layers to put back, found in at most so many trials.

    A search that was stopped goes on where it was. A trial passes where the rates on the selection pictures
    would clear the recipe's INT8 gates on as many pictures as will validate (or 512, where those are so few
    that no rate could).

    Args:
        graph: the FP32 graph that is quantized.
        ranges: of `calibration_step`.
        selection: pictures that choose.
        costs: INT8 layer -> its multiply-adds.
        scales: type of the scales.
        most: trials.
    """
    inputs = {
        "graph": graph.key,
        "ranges": ranges.key,
        "selection": selection.list_digest,
        "policy": dataclasses.asdict(recipe.precision),
        "acceptance": dataclasses.asdict(recipe.acceptance.int8),
        "validation": recipe.validation.images,
        "scales": scales,
        "most": most,
        "code": code_digest("cnnx.pipeline.repairing", "cnnx.agreement", "cnnx.quant.repair", "cnnx.graph"),
        "onnxruntime": installed_version("onnxruntime"),
    }
    place = steps.store.place("repair", inputs)
    journal = place.with_name(f".{place.name}.partial")

    def fill(folder: Path, progress: Progress) -> None:
        trials = _Trials(graph, ranges, selection, recipe, costs, scales, journal, progress, most)
        found = repair(list(costs), trials.attempt, costs=costs, most=most)
        (folder / _FILE).write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n", encoding="utf-8")
        journal.unlink(missing_ok=True)

    entry = steps.make("repair", "repair", inputs, fill)
    data = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    return Repair(
        put_back=tuple(PutBack(**each) for each in data["put_back"]),
        before=Outcome(**data["before"]),
        after=Outcome(**data["after"]),
        tried=data["tried"],
    )


class _Trials:
    """Quantizes, runs and compares; remembers in a file what was tried."""

    def __init__(
        self,
        graph: Entry,
        ranges: Entry,
        selection: Crops,
        recipe: Recipe,
        layers: Collection[str],
        scales: Scales,
        journal: Path,
        progress: Progress,
        most: int,
    ) -> None:
        self._graph, self._selection, self._recipe = graph, selection, recipe
        self._calibration = read_calibration(ranges)
        self._layers, self._scales = layers, scales
        self._journal, self._progress, self._most = journal, progress, most
        self._known: dict[frozenset[str], Outcome] = {}
        if journal.is_file():
            for names, outcome in json.loads(journal.read_text(encoding="utf-8")):
                self._known[frozenset(names)] = Outcome(**outcome)
        self._original = self._logits(graph.folder / MODEL)
        self._done = 0

    def attempt(self, int8: frozenset[str]) -> Outcome:
        """The network with just these layers in INT8."""
        if int8 not in self._known:
            others = {name: "tried in FP16" for name in self._layers if name not in int8}
            recipe = in_fp16(self._recipe, others)
            with tempfile.TemporaryDirectory() as folder:
                type_graph(
                    Path(folder),
                    self._graph,
                    self._calibration,
                    recipe,
                    precision="int8",
                    scales=self._scales,
                )
                likeness = compare(self._original, self._logits(Path(folder) / MODEL))
            images = max(self._recipe.validation.images, IMAGES)
            passes = would_pass(likeness, self._recipe.acceptance.int8, images=images)
            self._known[int8] = Outcome(likeness.divergence, passes)
            kept = [[sorted(names), dataclasses.asdict(each)] for names, each in self._known.items()]
            with atomic_file(self._journal) as draft:
                draft.write_text(json.dumps(kept), encoding="utf-8")
        self._done += 1
        self._progress(self._done, self._most)
        return self._known[int8]

    def _logits(self, model: Path) -> NDArray[np.float32]:
        session = open_here("ort", model)
        pixels, preprocessing = self._selection.pixels, self._recipe.preprocessing
        logits = logits_of(session, pixels, preprocessing, progress=lambda *_: None)
        session.close()
        return logits


def would_pass(likeness: Likeness, thresholds: Thresholds, *, images: int) -> bool:
    """Whether these rates, seen on so many validation pictures, would clear the gates."""
    rates = (
        (likeness.top1_agreement, thresholds.top1_agreement),
        (likeness.top1_in_top5, thresholds.top1_in_top5),
        (likeness.top5_agreement, thresholds.top5_agreement),
    )
    return all(wilson(rate, images).against(threshold) is Verdict.PASSED for rate, threshold in rates)


def in_fp16(recipe: Recipe, reasons: Mapping[str, str]) -> Recipe:
    """The recipe with these layers, each for its reason, out of INT8."""
    overrides = [LayerOverride(glob.escape(name), "fp16", reason) for name, reason in reasons.items()]
    policy = dataclasses.replace(recipe.precision, overrides=(*recipe.precision.overrides, *overrides))
    return dataclasses.replace(recipe, precision=policy)
