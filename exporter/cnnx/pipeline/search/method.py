"""Choosing by the selection pictures: which method's ranges make the INT8 graph most like its original."""

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
"""What `--method auto` tries. A lower percentile never won on a trained network (docs/decisions.md)."""

SELECTION_IMAGES = 128
"""Pictures that choose (more where `--repair` wants more). They neither calibrate nor validate."""

_FILE = "candidates.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method, and how like the original its INT8 graph is on the selection pictures."""

    method: str
    likeness: Likeness


def choose_method(quantizer: Quantizer, selection: Crops) -> tuple[Candidate, ...]:
    """Every candidate, the one of least divergence first.

    Divergence weighs logits by what they decide, and moves less from one image set to the next than
    counts of agreeing images do.

    Args:
        quantizer: whose ranges are to be chosen.
        selection: images that choose.
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

    entry = quantizer.steps.make("choice of a method", "choice", inputs, fill)
    chosen = json.loads((entry.folder / _FILE).read_text(encoding="utf-8"))
    return tuple(Candidate(each["method"], Likeness(**each["likeness"])) for each in chosen)
