"""`--method auto`: chooses the range method whose INT8 graph is closest to FP32 on the selection images."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from cnnx.agreement import Likeness
from cnnx.data.crops import Crops
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.quantizer import Quantizer
from cnnx.pipeline.search.trials import compare_ranges
from cnnx.pipeline.steps.inference import RUNNER, ran_by
from cnnx.store.own_code import own_code

AUTO = "auto"
CANDIDATES = ("entropy", "max", "mse", "percentile-99.99", "percentile-99.999")
"""Tried by `--method auto`. A lower percentile never won on a trained network (docs/decisions.md)."""

SELECTION_IMAGES = 128
"""Number of selection images (`--repair` uses more). They are not used for calibration or validation."""

_FILE = "candidates.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A range method, and how closely its INT8 graph matches the FP32 graph on the selection images."""

    method: str
    likeness: Likeness


def choose_method(quantizer: Quantizer, selection: Crops) -> tuple[Candidate, ...]:
    """All candidates, sorted by divergence, lowest first.

    Divergence weighs logits by their effect on the class probabilities. It varies less between image sets
    than the number of agreeing images does.

    Args:
        quantizer: quantizer whose range method is chosen.
        selection: images to compare on.
    """
    inputs = {
        "statistics": quantizer.statistics.key,
        "graph": quantizer.graph.key,
        "selection": selection.key,
        "policy": dataclasses.asdict(quantizer.recipe.precision),
        "scales": quantizer.scales,
        "candidates": CANDIDATES,
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }

    def fill(folder: Path, progress: Progress) -> None:
        quiet = quantizer.quiet()
        ranges = [quiet.ranges(method) for method in CANDIDATES]
        likenesses = compare_ranges(quiet, ranges, selection, progress=progress)
        found = [Candidate(*each) for each in zip(CANDIDATES, likenesses, strict=True)]
        found.sort(key=lambda candidate: candidate.likeness.divergence)
        text = json.dumps([dataclasses.asdict(candidate) for candidate in found], indent=1)
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")

    entry = quantizer.steps.make("choice of method", "choice", inputs, fill)
    chosen = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    return tuple(Candidate(each["method"], Likeness(**each["likeness"])) for each in chosen)
