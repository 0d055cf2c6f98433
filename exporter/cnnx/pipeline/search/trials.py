"""How like its FP32 graph a network is on held-out pictures: by several ranges, with some layers in INT8."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Likeness, compare
from cnnx.data.crops import Crops
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import MODEL
from cnnx.pipeline.steps.inference import graph_logits, refuse_nonfinite
from cnnx.pipeline.steps.typed_graph import graph_step, type_graph
from cnnx.quant.calibration import Calibration
from cnnx.recipe import LayerOverride, Recipe, Scales
from cnnx.store import Entry, atomic_file


class Trials:
    """Tries networks, each once. What came out is kept in a journal: who was stopped goes on from there.

    Args:
        graph: the FP32 graph that is quantized, and compared with.
        calibration: ranges of all that might be in INT8.
        pixels: pictures (N, H, W, C).
        recipe: preprocessing, and the policy that leaves `layers` in INT8.
        layers: those in INT8 when none is taken out.
        scales: type of the scales.
        journal: file of outcomes; its caller takes it away.

    Attributes:
        original: the FP32 graph's logits.
    """

    def __init__(
        self,
        graph: Entry,
        calibration: Calibration,
        pixels: NDArray[np.uint8],
        recipe: Recipe,
        *,
        layers: Sequence[str],
        scales: Scales,
        journal: Path,
    ) -> None:
        self.original = graph_logits(graph.folder / MODEL, pixels, recipe.preprocessing)
        self._graph, self._calibration, self._pixels, self._recipe = graph, calibration, pixels, recipe
        self._layers, self._scales, self._journal = layers, scales, journal
        self._known = read_journal(journal)

    def __call__(self, int8: frozenset[str]) -> Likeness:
        """The network with just these of the layers in INT8."""
        if int8 not in self._known:
            self._known[int8] = compare(self.original, self.logits(int8))
            kept = [[sorted(names), dataclasses.asdict(each)] for names, each in self._known.items()]
            with atomic_file(self._journal) as draft:
                draft.write_text(json.dumps(kept), encoding="utf-8")
        return self._known[int8]

    def logits(self, int8: frozenset[str]) -> NDArray[np.float32]:
        """Of that network; not kept."""
        others = {name: "tried in FP16" for name in self._layers if name not in int8}
        tried = in_fp16(self._recipe, others)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            type_graph(folder, self._graph, self._calibration, tried, precision="int8", scales=self._scales)
            return graph_logits(folder / MODEL, self._pixels, self._recipe.preprocessing)


def compare_ranges(
    steps: Steps,
    graph: Entry,
    ranges: Sequence[Entry],
    selection: Crops,
    recipe: Recipe,
    *,
    scales: Scales,
    progress: Progress,
) -> list[Likeness]:
    """How like its FP32 graph the network is when quantized by each of these ranges.

    Raises:
        InputRefused: a logit of the FP32 graph is not finite.
    """
    total = (1 + len(ranges)) * len(selection)

    def logits(number: int, model: Path) -> NDArray[np.float32]:
        before = number * len(selection)
        return graph_logits(
            model,
            selection.pixels,
            recipe.preprocessing,
            progress=lambda done, _: progress(before + done, total),
        )

    original = logits(0, graph.folder / MODEL)
    refuse_nonfinite(original, recipe)
    found = []
    for number, entry in enumerate(ranges, start=1):
        typed = graph_step(steps, graph, entry, recipe, precision="int8", scales=scales)
        found.append(compare(original, logits(number, typed.folder / MODEL)))
    return found


def read_journal(file: Path) -> dict[frozenset[str], Likeness]:
    """What was tried before a stop; nothing where there was none, or the file is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        return {frozenset(names): Likeness(**outcome) for names, outcome in kept}
    return {}


def in_fp16(recipe: Recipe, reasons: Mapping[str, str]) -> Recipe:
    """The recipe with these layers, each for its reason, out of INT8."""
    overrides = [LayerOverride(glob.escape(name), "fp16", reason) for name, reason in reasons.items()]
    policy = dataclasses.replace(recipe.precision, overrides=(*recipe.precision.overrides, *overrides))
    return dataclasses.replace(recipe, precision=policy)
