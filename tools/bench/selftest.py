"""Write docs/selftest.md: which faults the self-test catches.

python -m tools.bench.selftest [NETWORK ...]

Each network is exported in each precision. Sound engines are simulated by its graph with noise on every
computed tensor: once of the size of FP16 rounding (FP32 for an FP32 bundle), and once four times that. Noise
is independent between images: a repeat takes one of `DRAWS` runs for each. Records are written to
build/selftest/; bundles with a record are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.normalize import normalize
from cnnx.machine.environment import cpu_model
from cnnx.record import Subject
from cnnx.runtimes import get
from cnnx.selftest import SelfTest, self_test
from tools import ROOT
from tools.bench import planted
from tools.markdown import table, write_page
from tools.resumable import Records, fill, one_by_one

RECORDS, PAGE = Records(ROOT / "build" / "selftest"), ROOT / "docs" / "selftest.md"
NETWORKS = ("lenet5", "resnet20", "small-levit")
PRECISIONS = ("fp32", "fp16", "int8")
NEIGHBOURS = {"resnet20": "plain20", "small-levit": "resnet20"}
"""Neighbour: a different network with the same classes and input."""
DRAWS, REPEATS = 20, 200
SIZES = {"fp32": planted.FP32_STEP, "fp16": planted.FP16_STEP, "int8": planted.FP16_STEP}


class Bench:
    """One bundle and the reference data of its self-test."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.reference = bundle, bundle.reference()
        self.preprocessing = recipe_of(bundle.manifest).preprocessing
        self.graph = onnx.load(bundle.model)
        self.images = normalize(self.reference.crops, self.preprocessing)

    def logits(self, graph: onnx.ModelProto, images: NDArray[np.float32], repeats: int = 1) -> Iterator[Any]:
        """Logits of a graph, run like the bundle's graph."""
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(graph, Path(folder) / "model.onnx")
            session = get("ort").open(Path(folder) / "model.onnx")
            for _ in range(repeats):
                yield session.run(images)[session.output_names[0]]
            session.close()

    def judge(self, logits: NDArray[np.float32]) -> SelfTest:
        """The self-test of these logits."""
        manifest = self.bundle.manifest
        return self_test(
            self.reference.graph,
            logits,
            original=self.reference.original,
            precision=manifest.precision,
            subject=Subject(manifest.name, "graph", "", manifest.precision, "", ""),
            ids=self.reference.ids,
            image_set="",
        )

    def faults(self, others: dict[str, onnx.ModelProto]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """All planted faults with their logits; `others` are graphs of neighbours."""
        for what, graph in (*planted.graph_faults(self.graph), *others.items()):
            yield what, next(self.logits(graph, self.images))
        for what, images in planted.image_faults(self.reference.crops, self.images):
            yield what, next(self.logits(self.graph, images))
        yield from planted.logit_faults(self.reference.graph)


def margin(tested: SelfTest) -> float:
    """Smallest margin of a check, in dB; negative if it failed."""
    return min(check.margin for check in tested.checks)


def run(name: str, precision: str) -> dict[str, Any]:
    """The record of one bundle."""
    bench = Bench(exported(name, precision))
    others = {
        f"neighbouring engine: {other}": onnx.load(exported(name, other).model)
        for other in PRECISIONS
        if other != precision
    }
    others["neighbouring engine: other weights"] = onnx.load(exported(name, precision, "standin").model)
    if precision == "int8":
        method = exported(name, precision, "pretrained", "max")
        others["neighbouring engine: ranges by another method"] = onnx.load(method.model)
    if name in NEIGHBOURS:
        others["neighbouring engine: another network"] = onnx.load(
            exported(NEIGHBOURS[name], precision).model
        )
    record: dict[str, Any] = {"name": name, "precision": precision, "sound": {}, "faults": {}}
    for times in (1, 4):
        noisy = planted.with_noise(bench.graph, times * SIZES[precision])
        drawn = np.stack(list(bench.logits(noisy, bench.images, DRAWS)))
        places = np.random.default_rng(0).integers(DRAWS, size=(REPEATS, len(bench.images)))
        repeats = (drawn[chosen, np.arange(len(chosen))] for chosen in places)
        record["sound"][str(times)] = [margin(bench.judge(logits)) for logits in repeats]
    for what, logits in bench.faults(others):
        same = bool(np.array_equal(logits, bench.reference.graph))
        tested = bench.judge(logits)
        record["faults"][what] = {
            "margin": margin(tested),
            "caught": tested.verdict.value == "failed",
            "changed": float((logits.argmax(1) != bench.reference.graph.argmax(1)).mean()),
            "same": same,
            "by": [check.name for check in tested.checks if check.margin < 0],
        }
    return record


def exported(name: str, precision: Any, weights: str = "pretrained", method: str | None = None) -> Bundle:
    """A bundle, exported once."""
    place = RECORDS.folder / "bundles" / "-".join(filter(None, (name, precision, weights, method)))
    options: dict[str, Any] = {"method": method} if method else {}
    return cnnx.export(
        name, precision=precision, weights=weights, target="ort", out=place, validation_images=200, **options
    ).bundle


def page(records: list[dict[str, Any]]) -> str:
    """The text of the page."""
    names = [f"{record['name']} {record['precision']}" for record in records]
    sound = []
    for name, record in zip(names, records, strict=True):
        margins = record["sound"].values()
        told = ((f"{sum(one >= 0 for one in m)} of {len(m)}", f"{min(m):+.1f}") for m in margins)
        sound.append([name, *itertools.chain.from_iterable(told)])
    rows = []
    families: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for what in dict.fromkeys(what for record in records for what in record["faults"]):
        cells = []
        for record in records:
            found = record["faults"].get(what)
            if found is None or found["same"]:
                cells.append("" if found is None else "-")
                continue
            families[what.split(":")[0]][0] += found["caught"]
            families[what.split(":")[0]][1] += 1
            text = f"{found['margin']:+.1f}"
            cells.append(text if found["caught"] else f"**{text}** ({found['changed']:.1%})")
        rows.append([what, *cells])
    counts = "; ".join(f"{family}: {caught} of {total}" for family, (caught, total) in families.items())
    return TEXT.format(
        machine=f"{os.cpu_count()} cores of {cpu_model()}, no GPU",
        repeats=REPEATS,
        draws=DRAWS,
        sound=table(SOUND, sound),
        faults=table(["fault", *names], rows),
        counts=counts,
    )


SOUND = ("bundle", "passed", "smallest margin", "passed, 4 x", "smallest margin, 4 x")
TEXT = """# What the self-test catches

Written by `python -m tools.bench.selftest`; do not edit. {machine}; 200 images for each bundle.

`cnnx validate` holds an engine to the logits that the bundle's own graph gave at export. A margin
is the distance in dB from the limit of the check that is nearest to failing, or failed by most.
Below 0 the fault is caught.

## Sound engines

The graph with noise at every computed tensor: of the size that two runtimes differ by (FP16's
rounding step for FP16 and INT8 bundles, FP32's for FP32), and four times that. {repeats} repeats,
each of which takes for every image one of {draws} runs.

{sound}

## Planted faults

Margin in dB. **Bold**: not caught, with the share of the images whose top class it changed. A
dash: the logits are the same to the last bit.

{faults}

Caught: {counts}.

A fault that is not caught changes the logits by less than two sound runtimes differ. In INT8
rounding otherwise moves values across quantization steps, layer after layer, and the logits then
differ by as much as the quantization error. A range that is 10 % or a factor of two too wide, or
one INT8 weight among thousands, can be below that. What such a fault costs in agreement is judged
by `cnnx validate --validation-data`.
"""


def main() -> None:
    """Run missing cells, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    names = parser.parse_args().networks
    cells = {f"{name}-{precision}": (name, precision) for name in names for precision in PRECISIONS}
    fill(RECORDS, one_by_one(cells, run), again=False)
    write_page(PAGE, page(list(RECORDS.among(cells).values())))


if __name__ == "__main__":
    main()
