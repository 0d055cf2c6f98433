"""Compare cnnx with onnxruntime.quantization and ModelOpt in one run: docs/quantization.md.

python -m tools.bench.quantization [--names PATTERN] [--ways PATTERN] [--images N] [--large] [--again] ...

Every way gets the same FP32 graph and the same calibration images, and works in a process of its own. What
it leaves is judged on the validation images, put through cnnx's linter and, where TensorRT for RTX is
installed, through its parser and builder. Each cell leaves a record in build/quantization/; cells with a
record are not run again, so a stopped run continues. ModelOpt gets a venv of its own under build/. With
--large: time and memory alone, on ResNet-50 and VGG-16 with stand-in weights. The page is written from all
records there are, and docs/data/quantization.json keeps them for a run elsewhere.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator, Sequence

from tools import ROOT, resumable
from tools.bench.quantization import page, records
from tools.bench.quantization.cells import prepare, run_cell
from tools.bench.quantization.records import LARGE, WAYS, networks, validation_images
from tools.resumable import Record

VALIDATION_IMAGES = 10_000


def run_network(wanted: Sequence[str], *, images: int, large: bool) -> Iterator[tuple[str, Record]]:
    """Run a network's cells, which share its graph, images and original logits."""
    name = wanted[0].partition("/")[0]
    print(f"{name}: graph, images and the original's logits", flush=True)
    ground = prepare(name, images=validation_images(name, images), large=large)
    for cell in wanted:
        yield cell, run_cell(ground, cell.partition("/")[2])


def fill(names: Sequence[str], ways: Sequence[str], *, images: int, large: bool, again: bool) -> None:
    """Run the cells that have no record; `images` is the number of validation images."""
    run = functools.partial(run_network, images=images, large=large)
    resumable.fill(
        records.RECORDS,
        [([f"{name}/{way}" for way in ways], run) for name in names],
        again=again,
        done=lambda record: bool(record["images"] == validation_images(record["name"], images)),
        in_words=in_words,
    )


def in_words(record: Record) -> str:
    cost = ""
    if "seconds" in record:
        cost = f"{record['seconds']:.1f} s, {record['peak_bytes'] / 2**20:,.0f} MiB"
    if "failed" in record:
        return f"{cost} failed: {record['failed']}"
    if "accuracy" in record:
        cost += f", {record['original']:.2%} -> {record['accuracy']:.2%}"
    if "likeness" in record:
        cost += f", {1000 * (record['likeness']['divergence'] or float('inf')):.3g} millinats"
    if "rtx" in record:
        cost += f", {record['int8_share'] or 0:.0%} in INT8, rtx: {record['rtx']}"
    return cost


def main() -> None:
    """Run missing cells, then write the page and the plot."""
    parser = resumable.asked_for(__doc__)
    parser.add_argument("--ways", default="*", help=f"shell pattern of: {', '.join(WAYS)}")
    parser.add_argument("--images", type=int, default=VALIDATION_IMAGES, help="validation images")
    parser.add_argument("--large", action="store_true", help=f"measure cost on {' and '.join(LARGE)} instead")
    options = parser.parse_args()
    if not options.page_only:
        names = fnmatch.filter(LARGE if options.large else networks(), options.names)
        ways = fnmatch.filter(WAYS, options.ways)
        if not names or not ways:
            parser.error("no network or no way is called so")
        images = 0 if options.large else options.images
        every = [f"{name}/{way}" for name in (*networks(), *LARGE) for way in WAYS]
        with resumable.keep_together(records.RECORDS, records.KEPT, every):
            fill(names, ways, images=images, large=options.large, again=options.again)
    found = records.records()
    if not found:
        parser.error("there are no records yet: leave out --page-only")
    page.write(found, folder=ROOT / "docs")
    print(f"docs/{page.PAGE} and docs/{page.CHART}: {len(found)} networks")


if __name__ == "__main__":
    main()
