"""Write docs/trained.md: the cost of INT8 for trained networks and their hostile twins, by method.

python -m tools.bench.hostile [--names PATTERN] [--again] [--page-only]

Every network is calibrated and judged as `cnnx export --int8` does it. Each cell
leaves a record in build/hostile/; cells with a record are not run again, so a stopped run continues.
"""

from __future__ import annotations

import fnmatch
import json
import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import onnx
from safetensors import safe_open
from scipy import stats  # type: ignore[import-untyped]

import cnnx
from cnnx.bundle import Bundle
from cnnx.graph import edit
from cnnx.recipe import read_recipe, recipe_names
from cnnx.resources import shared_folder
from tools import ROOT
from tools.bench.measured import here_and_now, where_measured
from tools.markdown import table, write_page
from tools.resumable import Record, Records, asked_for, fill, one_by_one
from tools.train.shapes100 import AGAIN

RECORDS = Records(ROOT / "build" / "hostile")
PAGE = ROOT / "docs" / "trained.md"
CHART = ROOT / "docs" / "trained.svg"
VARIANTS: dict[str, dict[str, Any]] = {
    "max": {"method": "max", "equalize": False},
    "entropy": {"method": "entropy", "equalize": False},
    "equalized": {"method": "auto", "equalize": True},
}
"""Two basic methods on the unmodified network, and cnnx today: equalized channels, and the method that
held-out images choose."""
CALIBRATION_IMAGES, VALIDATION_IMAGES = 512, 2048


def networks() -> list[str]:
    """Networks trained on shapes100, each followed by its twins."""
    names = [name for name in recipe_names() if read_recipe(name).validation.data == "shapes100"]
    return sorted(names, key=lambda name: (original_of(name, names), name != original_of(name, names), name))


def original_of(name: str, names: list[str]) -> str:
    """The network that a twin was made from; the twin's name starts with its name."""
    return min((other for other in names if name == other or name.startswith(f"{other}-")), key=len)


def run_cell(name: str, variant: str) -> dict[str, Any]:
    """Calibrate a network with one method and validate it."""
    with tempfile.TemporaryDirectory() as folder:
        result = cnnx.export(
            name,
            precision="int8",
            target="ort",
            calibration_images=CALIBRATION_IMAGES,
            validation_images=VALIDATION_IMAGES,
            out=Path(folder) / "bundle",
            **VARIANTS[variant],
        )
        validation, bundle = result.validation, result.bundle
        assert validation is not None and validation.accuracy is not None
        return {
            "name": name,
            "variant": variant,
            "method": json.loads((bundle.path / "calibration.json").read_text())["method"],
            "rates": {
                gate.name: [gate.value, gate.interval.low, gate.interval.high] for gate in validation.gates
            },
            "verdict": validation.verdict.value,
            "original": validation.accuracy.original,
            "engine": validation.accuracy.engine,
            "sqnr_db": validation.logit_sqnr_db,
            "int8_share": result.int8_share,
            "islands": sum(layer["precision"] == "fp32" for layer in bundle.manifest.layers),
            "largest": max(maxima_of(bundle).values()),
            "joints": list(joints(bundle)),
            **here_and_now(),
        }


def maxima_of(bundle: Bundle) -> dict[str, float]:
    """Largest absolute value of each activation over the calibration images."""
    maxima: dict[str, float] = json.loads((bundle.path / "calibration.json").read_text())["maxima"]
    return maxima


def joints(bundle: Bundle) -> Iterator[tuple[str, str, list[float]]]:
    """Sums and concatenations of activations, with the range of each input."""
    maxima = maxima_of(bundle)
    model = onnx.load(bundle.model)
    producers = edit.wiring(model.graph).producers

    def made_by(tensor: str) -> str:
        while tensor in producers and tensor not in maxima:
            tensor = producers[tensor].input[0]  # Q/DQ and casts
        return tensor

    for node in model.graph.node:
        parts = [made_by(tensor) for tensor in node.input]
        if node.op_type in ("Add", "Concat") and all(part in maxima for part in parts):
            yield node.name, node.op_type, [maxima[part] for part in parts]


def records() -> dict[str, dict[str, Record]]:
    """network -> variant -> record, for networks with all records."""
    found = {
        name: {v: record for v in VARIANTS if (record := RECORDS.get(f"{name}-{v}"))} for name in networks()
    }
    return {name: by_variant for name, by_variant in found.items() if len(by_variant) == len(VARIANTS)}


def accuracy_rows(found: dict[str, dict[str, Record]]) -> Iterator[list[str]]:
    """One row per network: its accuracy in each variant."""
    for name, by_variant in found.items():
        some = by_variant["max"]
        values = [
            value
            for record in by_variant.values()
            for value in (
                f"{record['engine']:.2%}",
                f"{record['rates']['top-1 agreement'][0]:.2%}",
                f"{record['sqnr_db']:.1f}",
                record["verdict"],
            )
        ]
        last = by_variant["equalized"]["method"], f"{some['int8_share']:.1%}", str(some["islands"])
        yield [name, f"{some['original']:.2%}", *values, *last]


def joint_rows(found: dict[str, dict[str, Record]]) -> Iterator[list[str]]:
    """One row per network and kind of joint: how much the joined ranges differ."""
    for name, by_variant in found.items():
        for op in ("Add", "Concat"):
            spreads = sorted(
                (max(parts) / max(min(parts), 1e-30), node)
                for node, kind, parts in by_variant["max"]["joints"]
                if kind == op
            )
            if spreads:
                middle, (widest, where) = spreads[len(spreads) // 2][0], spreads[-1]
                yield [name, op, str(len(spreads)), f"{middle:.1f}", f"{widest:.1f}", where]


ACCURACY = (
    "network", "FP32",
    *(f"{variant} {what}" for variant in VARIANTS for what in ("top-1", "agreement", "SQNR", "verdict")),
    "chosen", "in INT8", "FP32 islands",
)  # fmt: skip
TRAINING = (
    "network", "parameters", "MACs", "images", "top-1 on 10,000", "minutes", "command",
)  # fmt: skip
TRAINED_AGAIN = (
    "network", "shipped", "other seeds", "standard deviation, points", "95 % of further runs",
)  # fmt: skip
JOINTS = ("network", "joint", "count", "median ratio", "widest ratio", "where")

TEXT = """\
# Trained networks and their hostile twins

Seven small networks are trained on `shapes100` ([contact sheet](shapes100.png)) and ship with their weights;
`python -m tools.train.shapes100` trains them again. Each has a twin that computes the same function in FP32
with its channels scaled up and down (`python -m tools.train.hostile`). In one more twin only the parts of
concatenations are scaled (`-parts`), in another constants are shifted from one side of sums to the other
(`-branches`). Calibration, placement and repair are tested on them. The cost of INT8, with {calibration}
calibration images and {validation:,} validation images:

{accuracy}

![accuracy lost](trained.svg)

*FP32* is the original's top-1 accuracy, *top-1* the INT8 graph's, *agreement* the share of images whose
top class is the original's, *SQNR* that of the logits in dB. *max* and *entropy* take the network as it is
(`--no-equalize`); *equalized* is what `cnnx export --int8 --method auto` does: channels are equalized, and
held-out images choose the method. *FP32 islands* are layers left in FP32 because their activations exceed
the range of FP16, *in INT8* is the share of the MACs, both for *max*. The graph ran on ONNX Runtime's CPU
provider, by `python -m tools.bench.hostile`.
{measured}{missing}

## How they were trained

Each image was seen once by SGD, in one cycle of its rate; matrix products in bfloat16 where the command
says so. Where one thread was used, the machine's other core was busy. The same command on the same processor
repeats the log to the digit (tried on 61,440 images of an earlier small-vgg-bn).

{training}

On two cores of an AMD EPYC without bfloat16 instructions, nothing beside it, by the rate of 8,192 images
(2026-11-26): resnet20 would take 31 minutes, plain20 32, densenet22-12 48, small-vgg-bn 15,
small-googlenet-bn 29, small-mobilenet 17, small-levit 49. On a CPU that
has them training went 1.5 to 1.8 times as fast before, but for depthwise convolutions.

The interval is that of these weights, over images. Other first weights and another order, or sums that
another processor or number of threads rounds differently, end in other weights, and runs differ by more than
images do. Trained again with nothing changed but the seed:

{again}

*95 % of further runs* is the prediction interval of one more run (Student's t over these). It is what a
network that is trained again should be held to; networks that are not in the table were trained once.

## Ranges that meet

For sums and concatenations: the largest range among what they join over the smallest (largest absolute value
over the calibration images). Where it is large, one scale for all is not enough.

{joints}
"""


def training_rows() -> Iterator[list[str]]:
    """One row per trained network, from the metadata of its weights."""
    for name in networks():
        recipe = read_recipe(name)
        file = shared_folder("recipes") / "weights" / recipe.weights.file
        with safe_open(file, "pt") as weights:
            made = json.loads(weights.metadata()["made"])
        if "command" in made:  # of weights older than this folder by the file's name then
            command = made["command"].replace("tools/train_shapes100.py", "-m tools.train.shapes100")
            yield [
                name,
                f"{recipe.model.parameters:,}",
                f"{recipe.model.multiply_adds:,}",
                f"{made['settings']['images']:,}",
                made["validation"].partition("right: ")[2],
                f"{made['minutes']:.0f}",
                f"`{command}`",
            ]


def again_rows() -> Iterator[list[str]]:
    """One row per network trained with several seeds."""
    again = json.loads(AGAIN.read_text()) if AGAIN.exists() else []
    for name in networks():
        runs = [run for run in again if run["name"] == name]
        if runs:
            rates = [read_recipe(name).weights.top1 / 100, *(run["right"] / run["of"] for run in runs)]
            mean, spread = statistics.mean(rates), statistics.stdev(rates)
            reach = stats.t.ppf(0.975, len(rates) - 1) * spread * math.sqrt(1 + 1 / len(rates))
            yield [
                name,
                f"{rates[0]:.2%}",
                ", ".join(f"{rate:.2%}" for rate in rates[1:]),
                f"{100 * spread:.2f}",
                f"{mean - reach:.2%} to {mean + reach:.2%}",
            ]


def page(found: dict[str, dict[str, Record]]) -> str:
    """The text of docs/trained.md."""
    every = [record for by_variant in found.values() for record in by_variant.values()]
    missing = ", ".join(name for name in networks() if name not in found)
    return TEXT.format(
        missing=f" Not measured yet: {missing}." if missing else "",
        calibration=CALIBRATION_IMAGES,
        validation=VALIDATION_IMAGES,
        accuracy=table(ACCURACY, accuracy_rows(found)),
        training=table(TRAINING, training_rows(), left=(0, 4, 6)),
        again=table(TRAINED_AGAIN, again_rows(), left=(0, 2, 4)),
        joints=table(JOINTS, joint_rows(found), left=(0, 1, 5)),
        measured=where_measured(every),
    )


def draw(found: dict[str, dict[str, Record]]) -> None:
    """Draw docs/trained.svg: accuracy lost in percentage points, one bar per variant."""
    plt.rcParams["svg.hashsalt"] = "cnnx"  # the same records give the same file
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(found) + 1))
    places = np.arange(len(found))
    for number, variant in enumerate(VARIANTS):
        lost = [
            100 * (by_variant[variant]["original"] - by_variant[variant]["engine"])
            for by_variant in found.values()
        ]
        axes.barh(places + 0.4 * number - 0.2, lost, 0.38, label=variant)
    axes.set_yticks(places, found)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([-1, 0, 1, 10, 80], ["-1", "0", "1", "10", "80"])
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("points of top-1 accuracy lost to INT8")
    axes.legend()
    figure.tight_layout()
    figure.savefig(CHART, metadata={"Date": None})


def main() -> None:
    """Run missing cells, then write the page and the plot."""
    parser = asked_for(__doc__)
    options = parser.parse_args()
    if not options.page_only:
        names = fnmatch.filter(networks(), options.names)
        cells = {f"{name}-{variant}": (name, variant) for name in names for variant in VARIANTS}
        fill(RECORDS, one_by_one(cells, run_cell), again=options.again)
    found = records()
    if not found:
        parser.error("there are no records yet: leave out --page-only, or give another pattern")
    write_page(PAGE, page(found))
    draw(found)
    print(f"{PAGE} and {CHART.name}: {len(found)} networks")


if __name__ == "__main__":
    main()
