"""Write docs/placement.md: the measured effect of each placement choice.

python -m tools.bench.placement [--names PATTERN] [--again] [--page-only]

Every trained network is quantized by the rules of `cnnx.graph.policy.rules` and with one choice changed at a
time, channels equalized, and judged beside its original. Twins that only have other channel scales are left
out: equalization makes them their originals' graphs (docs/trained.md). Each cell leaves a record in
build/placement/; cells with a record are not run again, so a stopped run continues.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cnnx import runtimes
from cnnx.agreement import compare
from cnnx.graph.policy.rules import RULES
from cnnx.pipeline.export.job import Job, make_artefacts
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps.inference import graph_logits
from cnnx.pipeline.steps.original import open_original
from cnnx.recipe import read_recipe, recipe_names
from cnnx.stats import Paired
from cnnx.store.digests import digest_of_file
from tools import ROOT
from tools.bench.measured import here_and_now, where_measured
from tools.markdown import table, write_page
from tools.resumable import Record, Records, asked_for, fill, one_by_one

RECORDS = Records(ROOT / "build" / "placement")
PAGE = ROOT / "docs" / "placement.md"
WHY = "measured in docs/placement.md"
VARIANTS: dict[str, dict[str, Any]] = {
    "as ruled": {},
    "small layers INT8": {"small_layers": "int8", "reason": WHY},
    "first layer FP16": {"first_layer": "fp16", "reason": WHY},
    "last layer FP16": {"last_layer": "fp16", "reason": WHY},
    "shortcuts FP16": {"residual": "fp16", "reason": WHY},
}
CALIBRATION_IMAGES, VALIDATION_IMAGES = 512, 4096


def networks() -> list[str]:
    """Networks trained on shapes100, and twins that equalization does not undo."""
    names = [name for name in recipe_names() if read_recipe(name).validation.data == "shapes100"]
    return [name for name in names if not name.endswith("-hostile")]


def run_cell(name: str, variant: str) -> Record:
    """Validate a network with one placement."""
    recipe = read_recipe(name)
    recipe = dataclasses.replace(
        recipe,
        precision=dataclasses.replace(recipe.precision, **VARIANTS[variant]),
        calibration=dataclasses.replace(recipe.calibration, images=CALIBRATION_IMAGES),
        validation=dataclasses.replace(recipe.validation, images=VALIDATION_IMAGES),
    )
    job = Job(
        recipe=recipe,
        precision="int8",
        scales="fp16",
        batch=(1, 1),
        method=recipe.calibration.method,
        out=Path(),
        runtime=runtimes.get("ort"),
        sm=(),
        repair_trials=0,
        labels=None,
    )
    original = open_original(recipe, "pretrained", trust_recipe=False, progress=lambda *_: None)
    artefacts = make_artefacts(job, original, Steps())
    crops = artefacts.validation
    logits = graph_logits(artefacts.typed.model, crops.pixels, recipe.preprocessing)
    likeness = compare(artefacts.logits, logits)
    assert crops.labels is not None
    right = [logits.argmax(axis=1) == crops.labels for logits in (artefacts.logits, logits)]
    return {
        "name": name,
        "variant": variant,
        "int8_share": artefacts.described["int8_share"],
        "graph": digest_of_file(artefacts.typed.model),
        "both": int(np.sum(right[0] & right[1])),
        "only_original": int(np.sum(right[0] & ~right[1])),
        "only_engine": int(np.sum(~right[0] & right[1])),
        "neither": int(np.sum(~right[0] & ~right[1])),
        **dataclasses.asdict(likeness),
        **here_and_now(),
    }


COLUMNS = (
    "network", "placement", "in INT8", "FP32 top-1", "INT8 top-1", "difference (95 %)", "agreement", "SQNR",
    "divergence, 1e-3 nats",
)  # fmt: skip

TEXT = """\
# Placement: which layers run in INT8

The first rule that applies to a layer decides. The last two rules depend on adjacent layers and
are applied afterwards. `cnnx inspect` shows the rule and the reason for each layer. The rules are
TensorRT's for every target, because a bundle has one graph for all targets
(`cnnx.graph.policy.rules`).

{rules}

## What each choice costs

A recipe can change four of these choices (`small_layers`, `first_layer`, `last_layer` and `residual` in
`[precision]`), or any layer with an override. The table has every trained network with one choice changed at
a time, on {validation:,} validation images, with {calibration} calibration images; *as ruled* has no change.
*Difference* is the INT8 accuracy minus the original's, in percentage points, with its paired interval
(`cnnx.stats.Paired`). Twins with scaled channels only are left out:
equalization turns them into their originals. A network without such a layer, or without sums, has no row.

{measured_rows}

Measured on ONNX Runtime's CPU provider with `python -m tools.bench.placement`.
{measured}{missing}
"""


def measured_rows(found: dict[str, Record]) -> Iterator[list[str]]:
    """One row per cell whose graph differs from the graph by the rules."""
    for record in found.values():
        ruled = found.get(cell(record["name"], "as ruled"))
        if record["variant"] != "as ruled" and ruled and record["graph"] == ruled["graph"]:
            continue
        paired = Paired(*(record[key] for key in ("both", "only_original", "only_engine", "neither")))
        margin = paired.margin(1.0)
        yield [
            record["name"],
            record["variant"],
            f"{record['int8_share']:.1%}",
            f"{paired.original_accuracy:.2%}",
            f"{paired.engine_accuracy:.2%}",
            f"{100 * (paired.engine_accuracy - paired.original_accuracy):+.2f} "
            f"({100 * margin.low:+.2f} to {100 * margin.high:+.2f})",
            f"{record['top1_agreement']:.2%}",
            f"{record['logit_sqnr_db']:.1f}",
            f"{1e3 * record['divergence']:.2f}",
        ]


def cell(name: str, variant: str) -> str:
    """The name of a cell's record."""
    return f"{name}, {variant}"


def main() -> None:
    """Run missing cells, then write the page."""
    parser = asked_for(__doc__)
    options = parser.parse_args()
    every = {cell(name, variant): (name, variant) for name in networks() for variant in VARIANTS}
    if not options.page_only:
        wanted = {key: of for key, of in every.items() if fnmatch.fnmatch(of[0], options.names)}
        fill(RECORDS, one_by_one(wanted, run_cell), again=options.again)
    found = RECORDS.among(every)
    if not found:
        parser.error("there are no records yet: leave out --page-only, or give another pattern")
    missing = ", ".join(name for name in networks() if cell(name, "as ruled") not in found)
    rules = ([f"`{rule.name}`", rule.because] for rule in {r.name: r for r in RULES}.values())
    write_page(
        PAGE,
        TEXT.format(
            rules=table(("rule", "because"), rules, left=(0, 1)),
            measured_rows=table(COLUMNS, measured_rows(found), left=(0, 1)),
            missing=f" Not measured yet: {missing}." if missing else "",
            measured=where_measured(found.values()),
            calibration=CALIBRATION_IMAGES,
            validation=VALIDATION_IMAGES,
        ),
    )
    print(f"{PAGE}: {len(found)} cells")


if __name__ == "__main__":
    main()
