"""`--repair`: layers that INT8 harms go back to FP16, chosen by the selection pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cnnx.agreement import Likeness, compare
from cnnx.data.crops import Crops
from cnnx.environment import installed_version
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps import MODEL, graph_logits, read_calibration, type_graph
from cnnx.quant.repair import Outcome, PutBack, Repair, repair
from cnnx.recipe import LayerOverride, Recipe, Scales, Thresholds
from cnnx.stats import Verdict, wilson
from cnnx.store import Entry, atomic_file, code_digest

REPAIR_IMAGES = 512
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
    validation_images: int,
) -> Repair:
    """The layers to put back, found in at most so many trials.

    A search that was stopped goes on where it was. A trial passes where the rates of agreement on the
    selection pictures would clear the recipe's INT8 gates on as many pictures as validate (or 512, where
    those are so few that no rate could). Accuracy is left to validation: what chooses has no labels.

    Args:
        graph: the FP32 graph that is quantized.
        ranges: of `calibration_step`.
        selection: pictures that choose.
        costs: INT8 layer -> its multiply-adds.
        scales: type of the scales.
        most: trials.
        validation_images: how many pictures will validate.
    """
    inputs = {
        "graph": graph.key,
        "ranges": ranges.key,
        "selection": selection.list_digest,
        "policy": dataclasses.asdict(recipe.precision),
        "acceptance": dataclasses.asdict(recipe.acceptance.int8),
        "validation": validation_images,
        "scales": scales,
        "most": most,
        "code": code_digest("cnnx.pipeline.repairing"),
        "onnx": installed_version("onnx"),
        "onnxruntime": installed_version("onnxruntime"),
    }
    place = steps.store.place("repair", inputs)
    journal = place.with_name(f".{place.name}.partial")

    def fill(folder: Path, progress: Progress) -> None:
        calibration = read_calibration(ranges)
        known = _read(journal)
        done = 0

        original = graph_logits(graph.folder / MODEL, selection.pixels, recipe.preprocessing)

        def attempt(int8: frozenset[str]) -> Outcome:
            nonlocal done
            if int8 not in known:
                others = {name: "tried in FP16" for name in costs if name not in int8}
                tried = in_fp16(recipe, others)
                with tempfile.TemporaryDirectory() as scratch:
                    type_graph(Path(scratch), graph, calibration, tried, precision="int8", scales=scales)
                    model = Path(scratch) / MODEL
                    likeness = compare(original, graph_logits(model, selection.pixels, recipe.preprocessing))
                passes = would_pass(
                    likeness, recipe.acceptance.int8, images=max(validation_images, REPAIR_IMAGES)
                )
                known[int8] = Outcome(likeness.divergence, passes)
                kept = [[sorted(names), dataclasses.asdict(each)] for names, each in known.items()]
                with atomic_file(journal) as draft:
                    draft.write_text(json.dumps(kept), encoding="utf-8")
            done += 1
            progress(done, most)
            return known[int8]

        found = repair(list(costs), attempt, costs=costs, most=most)
        (folder / _FILE).write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n", encoding="utf-8")
        journal.unlink(missing_ok=True)

    entry = steps.make("repair", "repair", inputs, fill)
    data = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    return Repair(
        put_back=tuple(PutBack(**each) for each in data["put_back"]),
        before=Outcome(**data["before"]),
        after=Outcome(**data["after"]),
        tried=data["tried"],
        exhausted=data["exhausted"],
    )


def _read(journal: Path) -> dict[frozenset[str], Outcome]:
    """What a stopped search had tried; nothing where there was none, or its file is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept = json.loads(journal.read_text(encoding="utf-8"))
        return {frozenset(names): Outcome(**outcome) for names, outcome in kept}
    return {}


def would_pass(likeness: Likeness, thresholds: Thresholds, *, images: int) -> bool:
    """Whether these rates, seen on so many validation pictures, would clear the gates of agreement."""
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
