"""Write docs/matrix.md: every recipe in every precision, from the definition to an engine.

python -m tools.bench.matrix [--names PATTERN] [--again] [--jobs N] [--page-only]

Weights are stand-ins, so nothing is judged: what is shown is that each network goes the whole way, what
quantization does to its logits, and what the steps cost. Each cell runs in a process of its own and leaves
a record in build/matrix/; cells with a record are not run again, so a stopped run continues.
"""

from __future__ import annotations

import datetime
import fnmatch
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cnnx
from cnnx.data.normalize import normalize
from cnnx.errors import CnnxError
from cnnx.graph.inspect import int8_share, left_out
from cnnx.graph.policy.rules import cause
from cnnx.machine.environment import cpu_model
from cnnx.recipe import read_recipe, recipe_from_dict
from cnnx.runtimes import get
from tools import ROOT, resumable
from tools.markdown import table, write_page
from tools.resumable import Record, Records

RECORDS = Records(ROOT / "build" / "matrix")
PAGE = ROOT / "docs" / "matrix.md"
PROGRAM = ("-m", "tools.bench.matrix")
PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_IMAGES, VALIDATION_IMAGES, SM = 16, 8, 86
ENOUGH = 0.95  # share of the MACs in INT8 below which the page gives a reason


def run_cell(name: str, precision: Any, *, jobs: int) -> Record:
    """Export, lint, build, run and measure one network in one precision, in this process."""
    builds = get("rtx").missing() is None
    with tempfile.TemporaryDirectory() as folder:
        result = cnnx.export(
            name,
            precision=precision,
            weights="standin",
            target="rtx" if builds else "ort",
            sm=[SM] if builds else [],
            calibration_images=CALIBRATION_IMAGES,
            validation_images=VALIDATION_IMAGES,
            out=Path(folder) / "bundle",
        )
        inspection = cnnx.inspect(result.bundle.path)
        layers, manifest = inspection.layers, result.bundle.manifest
        causes = {layer["node"]: cause(layer["rule"], layer["reason"]) for layer in manifest.layers}
        measured = {m.subject.artefact: m.latency.p50_ns for m in result.measurements}
        return {
            "name": name,
            "precision": precision,
            "multiply_adds": sum(layer.multiply_adds for layer in layers),
            "error": logit_error(result.bundle),
            "sqnr_db": result.validation.logit_sqnr_db,
            "int8_share": int8_share(layers),
            "left_out": next(iter(left_out(layers, causes)), ("", 0)),
            "engines": {engine.identity: Counter(engine.layer_types.values()) for engine in result.engines},
            "original_ns": measured.get("original"),
            "graph_ns": measured.get("graph"),
            "seconds": result.seconds,
            "peak_bytes": result.peak_bytes,
            "tools": manifest.versions,
            "machine": f"{os.cpu_count()} cores, {cpu_model()}, no GPU, {jobs} at a time",
            "date": datetime.date.today().isoformat(),
        }


def logit_error(bundle: cnnx.Bundle) -> float:
    """max|a - b| / max|b| between the bundle's graph on ONNX Runtime and the original, over the self-test."""
    reference = bundle.reference()
    recipe = recipe_from_dict(bundle.manifest.recipe, where=bundle.path / "recipe")
    session = cnnx.load(bundle.path, target="ort")
    found = [
        session.run(normalize(crop[None], recipe.preprocessing))[session.output_names[0]]
        for crop in reference.crops
    ]
    session.close()
    return float(np.abs(np.concatenate(found) - reference.original).max() / np.abs(reference.original).max())


def cells(pattern: str) -> Iterator[tuple[str, str]]:
    seen: list[tuple[object, object]] = []
    for name in (network.name for network in cnnx.list_networks()):
        recipe = read_recipe(name)
        if (recipe.model, recipe.input) in seen:  # a twin: the same network with different weights
            continue
        seen.append((recipe.model, recipe.input))
        if fnmatch.fnmatch(name, pattern):
            yield from ((name, precision) for precision in PRECISIONS)


def run_network(wanted: Sequence[str], *, jobs: int) -> Iterator[tuple[str, Record]]:
    """Run a network's cells in separate processes, with a shared temporary cache."""
    RECORDS.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RECORDS.folder) as cache:
        for cell in wanted:
            name, _, precision = cell.rpartition("-")
            command = [sys.executable, *PROGRAM, "--cell", name, precision, "--jobs", str(jobs)]
            environment = {**os.environ, "CNNX_CACHE": cache}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"]
                yield cell, {"name": name, "precision": precision, "failed": said[-1]}
            else:
                yield cell, json.loads(done.stdout)


def fill(pattern: str, *, again: bool, jobs: int) -> None:
    """Run cells without a record or with a failed one; `jobs` networks at a time."""
    run = functools.partial(run_network, jobs=jobs)
    networks = itertools.groupby(cells(pattern), key=lambda cell: cell[0])
    resumable.fill(
        RECORDS,
        [([f"{name}-{precision}" for _, precision in of], run) for name, of in networks],
        again=again,
        done=lambda record: "failed" not in record,
        in_words=in_words,
        jobs=jobs,
    )


def in_words(record: Record) -> str:
    return record.get("failed") or f"{record['seconds']:.0f} s, error {record['error']:.1e}"


def records() -> dict[str, dict[str, Record]]:
    """network -> precision -> record, for cells with a record."""
    found: dict[str, dict[str, Record]] = {}
    for name, precision in cells("*"):
        if record := RECORDS.get(f"{name}-{precision}"):
            found.setdefault(name, {})[precision] = record
    return found


LEGEND = """\
the errors show the effect of types and quantization on such logits, not the cost for trained networks.
*Error* is max|a - b| / max|b| of the graph on ONNX Runtime against PyTorch in FP32; *in INT8* is the share of
MACs whose operands arrive as INT8. ONNX Runtime's CPU provider computes FP16 graphs in FP32 and simulates
INT8: its times do not predict a GPU's. Times are medians, blank if an export made too few runs. Seconds are
the sum of all three cells; peak is the largest peak memory of a process."""

COLUMNS = (
    "network", "MACs", "FP32 error", "FP16 error", "INT8 error", "INT8 SQNR dB", "in INT8",
    "engines", "original ms", "FP16 graph ms", "INT8 graph ms", "seconds", "peak MiB",
)  # fmt: skip


def row(name: str, by_precision: dict[str, Record]) -> list[str]:
    whole = {p: r for p, r in by_precision.items() if "failed" not in r}
    any_record = next(iter(whole.values()), {})
    int8 = whole.get("int8", {})

    def error(precision: str) -> str:
        if precision in whole:
            return f"{whole[precision]['error']:.1e}"
        return "failed" if precision in by_precision else ""

    def milliseconds(record: Record, key: str) -> str:
        return f"{record[key] / 1e6:.1f}" if record.get(key) else ""

    return [
        name,
        f"{any_record['multiply_adds']:,}" if any_record else "",
        *(error(precision) for precision in PRECISIONS),
        f"{int8['sqnr_db']:.1f}" if int8 else "",
        f"{int8['int8_share']:.1%}" if int8 else "",
        f"{sum(bool(r['engines']) for r in whole.values())} of {len(PRECISIONS)}",
        milliseconds(whole.get("fp32", {}), "original_ns"),
        milliseconds(whole.get("fp16", {}), "graph_ns"),
        milliseconds(int8, "graph_ns"),
        f"{sum(r['seconds'] for r in whole.values()):.0f}",
        f"{max((r['peak_bytes'] for r in whole.values()), default=0) / 2**20:.0f}",
    ]


def page(found: dict[str, dict[str, Record]]) -> str:
    """docs/matrix.md."""
    done = [record for by_precision in found.values() for record in by_precision.values()]
    failed = [record for record in done if "failed" in record]
    whole = [record for record in done if "failed" not in record]
    machines, dates = ({record[key] for record in whole} for key in ("machine", "date"))
    tools = {f"{name} {version}" for record in whole for name, version in record["tools"].items()}
    lines = [
        "# Every network, every precision",
        "",
        f"Written by `make matrix`: {len(done)} cells of {len(found)} networks, {len(failed)} failed.",
        f"{'; '.join(sorted(machines))}; {' to '.join(sorted({min(dates), max(dates)}))}.",
        f"{', '.join(sorted(tools))}; engines for SM{SM} by TensorRT for RTX, built and never run.",
        "",
        f"Weights are stand-ins ({CALIBRATION_IMAGES} calibration images, {VALIDATION_IMAGES} to compare):",
        LEGEND,
        "",
        table(COLUMNS, (row(name, by_precision) for name, by_precision in found.items())),
        "",
        *exceptions(found),
    ]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [f"- {r['name']} {r['precision']}: {r['failed']}" for r in failed]
    return "\n".join(lines) + "\n"


def exceptions(found: dict[str, dict[str, Record]]) -> Iterator[str]:
    yield f"## Less than {ENOUGH:.0%} in INT8"
    yield ""
    yield "What keeps most MACs out of INT8:"
    yield ""
    for name, by_precision in found.items():
        record = by_precision.get("int8", {})
        if record.get("int8_share", 1) < ENOUGH:
            reason, cost = record["left_out"]
            yield f"- {name} ({record['int8_share']:.1%}): {reason} ({cost:,} MACs)"


def main() -> int:
    parser = resumable.asked_for(__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time; more than 1 distorts times")
    parser.add_argument(
        "--cell", nargs=2, metavar=("NAME", "PRECISION"), help="run one cell and print its record"
    )
    options = parser.parse_args()
    if options.cell:
        try:
            print(json.dumps(run_cell(*options.cell, jobs=options.jobs)))
        except CnnxError as error:
            print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        return 0
    if not options.page_only:
        fill(options.names, again=options.again, jobs=options.jobs)
    found = records()
    write_page(PAGE, page(found))
    print(f"{PAGE}: {len(found)} networks")
    failed = any("failed" in r for by_precision in found.values() for r in by_precision.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
