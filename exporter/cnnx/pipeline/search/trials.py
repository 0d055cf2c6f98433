"""Trials of quantized networks: how closely each matches its FP32 graph on held-out images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import Likeness, compare
from cnnx.data.crops import Crops
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.steps.artefacts import Ranges
from cnnx.pipeline.steps.inference import graph_logits, refuse_nonfinite
from cnnx.quant.calibration import Calibration
from cnnx.store.cache import Partial
from cnnx.store.files import scratch_folder


class Trials:
    """Tries each set of INT8 layers once. A journal keeps the outcomes, so that a stopped search resumes.

    Args:
        quantizer: quantizer whose policy leaves `layers` in INT8.
        calibration: ranges of all tensors that might be in INT8.
        pixels: images (N, H, W, C).
        layers: all layers that may be in INT8.
        journal: file of outcomes; the caller removes it.

    Attributes:
        original: logits of the FP32 graph.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        calibration: Calibration,
        pixels: NDArray[np.uint8],
        *,
        layers: Sequence[str],
        journal: Partial,
    ) -> None:
        self.original = graph_logits(quantizer.graph.model, pixels, quantizer.recipe.preprocessing)
        self._quantizer, self._calibration, self._pixels = quantizer, calibration, pixels
        self._layers, self._journal = layers, journal
        self._known = _read(journal)

    def __call__(self, int8: frozenset[str]) -> Likeness:
        """How closely the network with only these layers in INT8 matches the FP32 graph."""
        if int8 not in self._known:
            self._known[int8] = compare(self.original, self.logits(int8))
            kept = [[sorted(names), dataclasses.asdict(each)] for names, each in self._known.items()]
            self._journal.save(lambda file: file.write_bytes(json.dumps(kept).encode()))
        return self._known[int8]

    def logits(self, int8: frozenset[str]) -> NDArray[np.float32]:
        """Logits of the network with only these layers in INT8; not kept in the journal."""
        tried = self._quantizer.with_fp16(
            {name: "tried in FP16" for name in self._layers if name not in int8}
        )
        with scratch_folder() as scratch:
            model = tried.write_typed(scratch, self._calibration)
            return graph_logits(model, self._pixels, tried.recipe.preprocessing)


def compare_ranges(
    quantizer: Quantizer, ranges: Sequence[Ranges], selection: Crops, *, progress: Progress
) -> list[Likeness]:
    """How closely the network matches its FP32 graph when quantized by each of these ranges.

    Raises:
        InputRefused: a logit of the FP32 graph is not finite.
    """
    recipe, total = quantizer.recipe, (1 + len(ranges)) * len(selection)

    def logits(number: int, model: Path) -> NDArray[np.float32]:
        before = number * len(selection)
        return graph_logits(
            model,
            selection.pixels,
            recipe.preprocessing,
            progress=lambda done, _: progress(before + done, total),
        )

    original = logits(0, quantizer.graph.model)
    refuse_nonfinite(original, recipe)
    return [
        compare(original, logits(number, quantizer.typed(each).model))
        for number, each in enumerate(ranges, start=1)
    ]


def _read(journal: Partial) -> dict[frozenset[str], Likeness]:
    """Outcomes of an interrupted search; empty if there are none, or the journal is damaged."""
    kept = journal.load()
    return {frozenset(names): Likeness(**outcome) for names, outcome in json.loads(kept or b"[]")}
