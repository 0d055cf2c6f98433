"""Write docs/near-ties.md: which gates on agreement fail planted faults and pass sound engines.

python -m tools.bench.near_ties [--names PATTERN] [--page-only]

Each trained network is exported in FP16 and INT8 and judged on validation images against its FP32 graph.
Sound engines are its graph with noise of the size of FP16 rounding on every computed tensor, as ONNX Runtime
computes FP16 graphs in FP32 on a CPU. Records are kept in build/near-ties/; cells with a record are not run
again.
"""

from __future__ import annotations

import fnmatch
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import cnnx
from cnnx.agreement import estimates, probabilities
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.crops import write_crops
from cnnx.data.normalize import normalize
from cnnx.gates import CLEAR_MARGIN, DEFAULTS, Estimate
from cnnx.machine.environment import cpu_model
from cnnx.pipeline.steps.images import image_set
from cnnx.runtimes import get
from cnnx.stats import wilson
from tools import ROOT
from tools.bench import planted
from tools.markdown import table, write_page
from tools.resumable import Record, Records, asked_for, fill, one_by_one

RECORDS, PAGE = Records(ROOT / "build" / "near-ties"), ROOT / "docs" / "near-ties.md"
NETWORKS = (
    "lenet5", "densenet22-12", "plain20", "resnet20", "small-googlenet-bn", "small-levit", "small-mobilenet",
    "small-vgg-bn",
)  # fmt: skip
FAULTY = ("lenet5", "resnet20", "small-levit")
"""Networks that faults are planted in; the others only show what sound engines need."""
MARGINS = (0.02, 0.05, 0.1, 0.2, 0.5)
IMAGES, SOUND = 800, 2
AT_ONCE = 128
"""Images a run, which limits memory."""


class Bench:
    """One bundle, and validation images that were not used to make it."""

    def __init__(self, name: str, precision: str) -> None:
        self.bundle = exported(name, precision)
        self.recipe = recipe_of(self.bundle.manifest)
        self.graph = onnx.load(self.bundle.model)
        images = image_set(self.recipe, self.recipe.validation.data, "validation", None)
        folder = RECORDS.folder / "crops" / name
        crops = write_crops(
            images,
            self.recipe.preprocessing,
            shape=self.recipe.input.shape,
            count=IMAGES,
            folder=folder,
            progress=lambda *_: None,
        )
        self.crops, self.images = crops.pixels, normalize(crops.pixels, self.recipe.preprocessing)
        plain = onnx.load(exported(name, "fp32").model)
        # ONNX Runtime computes FP16 in FP32 on a CPU, only slower: its faults are those of the FP32 graph.
        self.faulty = self.graph if precision == "int8" else plain
        self.original = self.logits(plain, self.images)

    def logits(self, graph: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of a graph."""
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(graph, Path(folder) / "model.onnx")
            session = get("ort").open(Path(folder) / "model.onnx")
            parts = [
                session.run(images[first : first + AT_ONCE])[session.output_names[0]]
                for first in range(0, len(images), AT_ONCE)
            ]
            session.close()
        return np.concatenate(parts)

    def faults(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """All planted faults with their logits."""
        for what, graph in planted.graph_faults(self.faulty):
            yield what, self.logits(graph, self.images)
        for faults in (planted.image_faults, planted.more_image_faults):
            for what, images in faults(self.crops, self.images):
                yield what, self.logits(self.faulty, images)
        yield from planted.logit_faults(self.logits(self.faulty, self.images))


def exported(name: str, precision: Any) -> Bundle:
    """A bundle, exported once."""
    out = RECORDS.folder / "bundles" / f"{name}-{precision}"
    return cnnx.export(name, precision=precision, target="ort", out=out, validation_images=64).bundle


def figures(original: NDArray[np.float32], engine: NDArray[np.float32]) -> dict[str, Any]:
    """Every candidate for a gate, with its interval."""
    found: dict[str, Any] = {
        key: [each.value, each.interval.low, each.interval.high]
        for key, each in estimates(original, engine, None).items()
        if isinstance(each, Estimate) and each.interval
    }
    ordered = np.sort(probabilities(original), axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    same = (original.argmax(1) == engine.argmax(1)) & np.isfinite(engine).all(1)
    for least in MARGINS:
        clear = margin >= least
        rate = float(same[clear].mean())
        interval = wilson(rate, int(clear.sum()))
        found[f"clear {least}"] = [rate, interval.low, interval.high]
    found["flips"] = int((~same).sum())
    found["largest margin of a flip"] = float(margin[~same].max(initial=0))
    found["lost margin"] = float(np.where(same, 0, margin).mean())
    found["clear shares"] = {str(least): float((margin >= least).mean()) for least in MARGINS}
    return found


def run(name: str, precision: str) -> Record:
    """The record of one bundle."""
    bench = Bench(name, precision)
    noisy = planted.with_noise(bench.graph, planted.FP16_STEP)
    record: Record = {"name": name, "precision": precision, "images": len(bench.images), "faults": {}}
    record["sound"] = [figures(bench.original, bench.logits(noisy, bench.images)) for _ in range(SOUND)]
    for what, logits in bench.faults() if name in FAULTY else ():
        record["faults"][what] = figures(bench.original, logits)
    return record


def failed(figures: dict[str, Any], precision: str) -> dict[str, bool]:
    """Whether each gate fails: top-1 agreement with its old limit, the clear rate, divergence, and both."""
    limits = DEFAULTS[precision]
    assert limits.clear_agreement is not None and limits.divergence_nats is not None
    divergence = figures.get("divergence_nats")
    found = {
        "top1": figures["top1_agreement"][2] < limits.clear_agreement,
        "clear": figures[f"clear {CLEAR_MARGIN:g}"][2] < limits.clear_agreement,
        "divergence": divergence is None or divergence[1] > limits.divergence_nats,
    }
    return {**found, "new": found["clear"] or found["divergence"]}


def passed(figures: dict[str, Any], precision: str) -> dict[str, bool]:
    """Whether each gate passes."""
    limits = DEFAULTS[precision]
    assert limits.clear_agreement is not None and limits.divergence_nats is not None
    clear = figures[f"clear {CLEAR_MARGIN:g}"][1] >= limits.clear_agreement
    return {
        "top1": figures["top1_agreement"][1] >= limits.clear_agreement,
        "new": clear and figures["divergence_nats"][2] <= limits.divergence_nats,
    }


def sound_rows(records: list[Record]) -> Iterator[list[str]]:
    for record in records:
        for figures in record["sound"][:1]:
            said = passed(figures, record["precision"])
            yield [
                f"{record['name']} {record['precision']}",
                f"{figures['top1_agreement'][0]:.4f}",
                "passed" if said["top1"] else "**inconclusive**",
                str(figures["flips"]),
                f"{figures['largest margin of a flip']:.3f}",
                *(f"{figures[f'clear {least}'][0]:.4f}" for least in MARGINS),
                f"{figures['divergence_nats'][0]:.2g}",
                "passed" if said["new"] else "**not passed**",
            ]


def fault_rows(records: list[Record]) -> Iterator[list[str]]:
    for what in dict.fromkeys(what for record in records for what in record["faults"]):
        cells = []
        for record in records:
            if (figures := record["faults"].get(what)) is None:
                cells.append("")
                continue
            by = failed(figures, record["precision"])
            words = [name for name in ("top1", "clear", "divergence") if by[name]]
            cells.append(", ".join(words).replace("top1", "top-1") or "-")
        yield [what, *cells]


def page(records: list[Record]) -> str:
    """The text of the page."""
    faulty = [record for record in records if record["faults"]]
    names = [f"{record['name']} {record['precision']}" for record in faulty]
    counted = []
    for name, record in zip(names, faulty, strict=True):
        by = [failed(figures, record["precision"]) for figures in record["faults"].values()]
        totals = (str(sum(each[gate] for each in by)) for gate in ("top1", "clear", "divergence", "new"))
        counted.append([name, str(len(by)), *totals])
    clear = [f"clear {least:g}" for least in MARGINS]
    return TEXT.format(
        machine=f"{os.cpu_count()} cores of {cpu_model()}, no GPU",
        images=IMAGES,
        margin=CLEAR_MARGIN,
        sound=table(
            ["engine", "top-1", "its gate", "flips", "largest margin", *clear, "nats", "new gates"],
            sound_rows(records),
        ),
        counts=table(["engine", "faults", "top-1", "clear", "divergence", "clear or divergence"], counted),
        faults=table(["fault", *names], fault_rows(faulty), left=range(len(names) + 1)),
    )


TEXT = """# Near ties

Written by `python -m tools.bench.near_ties`; do not edit. {machine}; {images} validation images.

Two sound runtimes of one network already disagree on near ties: images whose two top classes are
about equally likely. Top-1 agreement counts such a flip like one on an image about which the
original is certain. Two gates do not:

- *clear agreement*: top-1 agreement on clear images, where the original's probability of its top
  class exceeds that of the second by at least {margin:g};
- *divergence*: the mean Kullback-Leibler divergence of the class probabilities from the original's,
  in nats per image. It sees every image and every class, also where nothing flips.

## Sound engines

The graph with noise of the size of FP16 rounding at every computed tensor, against the original:
top-1 agreement, whether it passes a gate of 0.99 (FP16) or 0.95 (INT8), flips, the largest margin
of a flipped image, agreement on images with at least that margin, divergence, and whether both new
gates pass.

{sound}

## Planted faults

Number of faults that fail each gate:

{counts}

Which gate fails each fault; "-": none does.

{faults}
"""


def main() -> None:
    """Run missing cells, then write the page."""
    options = asked_for(__doc__).parse_args()
    names = fnmatch.filter(NETWORKS, options.names)
    cells = {f"{name}-{precision}": (name, precision) for name in names for precision in ("fp16", "int8")}
    if not options.page_only:
        fill(RECORDS, one_by_one(cells, run), again=options.again)
    write_page(PAGE, page(list(RECORDS.among(cells).values())))


if __name__ == "__main__":
    main()
