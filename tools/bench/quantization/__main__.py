"""cnnx side by side with onnxruntime.quantization and ModelOpt, in one run: docs/quantization.md.

python -m tools.bench.quantization [--names PATTERN] [--ways PATTERN] [--images N] [--large] [--again]
    [--page-only]

Every way gets the same FP32 graph and the same calibration pictures, and works in a process of its own. What
it leaves is judged on the validation pictures, put through cnnx's linter and, where TensorRT for RTX is
installed, through its parser and builder. Each cell leaves a record in build/quantization/; cells with a
record are not run again, so a stopped run continues. ModelOpt gets a venv of its own under build/. With
--large: time and memory alone, on ResNet-50 and VGG-16 with stand-in weights. The page is written from all
records there are.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import datetime
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console

from cnnx import runtimes
from cnnx.agreement import compare, top_k
from cnnx.data.crops import Crops
from cnnx.data.images import Split
from cnnx.data.normalize import normalize
from cnnx.data.sets import open_images
from cnnx.errors import CnnxError
from cnnx.graph.inspect import expected_types, int8_share, layers
from cnnx.graph.lint import lint
from cnnx.machine.environment import cpu_model, detect, usable_cores
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.search.method import SELECTION_IMAGES
from cnnx.pipeline.steps.artefacts import MODEL, Fp32Graph
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import crops_step
from cnnx.pipeline.steps.inference import graph_logits
from cnnx.pipeline.steps.original import open_original
from cnnx.pipeline.steps.reference import reference_step
from cnnx.recipe import Recipe, read_recipe
from cnnx.runtimes import BuildRequest
from cnnx.store.files import atomic_file
from tools import ROOT
from tools.bench.quantization import page
from tools.bench.quantization.records import LARGE, WAYS, networks, place, recorded, records

VENV = ROOT / "build" / "modelopt-venv"
PROGRAM = ("-m", "tools.bench.quantization.ways")

# PyTorch is capped as in pyproject.toml: later ones may come with CUDA.
MODELOPT = ("nvidia-modelopt[onnx]==0.47.0", "torch>=2.10,<2.14")
CALIBRATION_IMAGES, VALIDATION_IMAGES = 512, 10_000
LARGE_ENTROPY_IMAGES = 32
_LONG = 60.0  # seconds from which a cell is timed once, not twice
_CAPABILITY = 86


@dataclass(frozen=True, slots=True)
class Ground:
    """What every way is given of a network, and what judges it (of a large one nothing does)."""

    recipe: Recipe
    graph: Fp32Graph
    calibration: Crops
    selection: Crops
    validation: Crops | None
    logits: NDArray[np.float32] | None


def prepare(name: str, *, images: int, large: bool) -> Ground:
    """The FP32 graph, the pictures and the original's logits, from the cache where they are in it."""
    steps, recipe = Steps(), read_recipe(name)
    weights = "standin" if large else "pretrained"
    original = open_original(recipe, weights, trust_recipe=False, progress=lambda *_: None)
    graph = export_step(steps, original, batch=(1, 1))
    data = "deadleaves" if large else recipe.validation.data

    def pictures(split: Split, count: int, *apart: Crops) -> Crops:
        preprocessing = recipe.preprocessing
        found = open_images(data, size=preprocessing.resize, color=preprocessing.color, split=split)
        return crops_step(steps, found, recipe, count=count, role=split, apart_from=apart)

    validation = None if large else pictures("validation", images)
    apart = [] if validation is None else [validation]
    selection = pictures("selection", SELECTION_IMAGES, *apart)
    count = LARGE[name] if large else CALIBRATION_IMAGES
    calibration = pictures("calibration", count, *apart, selection)
    logits = None
    if validation is not None:
        logits = reference_step(steps, original, graph, validation, recipe).logits
    return Ground(recipe, graph, calibration, selection, validation, logits)


def run_cell(ground: Ground, way: str) -> dict[str, Any]:
    """One network quantized one way: what that cost, and how good it is."""
    record: dict[str, Any] = {
        "name": ground.recipe.name,
        "way": way,
        "images": len(ground.validation) if ground.validation else 0,
        "calibration_images": len(_calibration_pixels(ground, way)),
        "machine": _machine(),
        "date": datetime.date.today().isoformat(),
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        try:
            costs = [quantize(ground, way, Path(folder), out)]
            if costs[0]["seconds"] < _LONG:
                costs.append(quantize(ground, way, Path(folder), out))
        except RuntimeError as error:
            return {**record, "failed": str(error)}
        best = min(costs, key=lambda cost: float(cost["seconds"]))
        record |= {**best, "peak_bytes": max(cost["peak_bytes"] for cost in costs)}
        if way == "plain":
            return record
        try:
            record |= looked_at(out)
            if ground.validation is not None and ground.logits is not None:
                record |= judged(ground.validation, ground.logits, out, ground.recipe)
        except CnnxError as error:
            record["failed"] = f"its graph cannot be judged: {error}"
    return record


def _calibration_pixels(ground: Ground, way: str) -> NDArray[np.uint8]:
    """Of a large network the peers' histogram methods get fewer: they keep every activation."""
    few = ground.validation is None and way.startswith(("ort-", "modelopt-")) and "max" not in way
    return ground.calibration.pixels[: LARGE_ENTROPY_IMAGES if few else None]


def quantize(ground: Ground, way: str, folder: Path, out: Path) -> dict[str, Any]:
    """Run ways.py once.

    Raises:
        RuntimeError: it failed; the last that it said.
    """
    pixels = _calibration_pixels(ground, way)
    np.save(folder / "pictures.npy", normalize(pixels, ground.recipe.preprocessing))
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    python = str(VENV / "bin" / "python") if way.startswith("modelopt-") else sys.executable
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # ModelOpt leaves files beside the graph: the cache's own is not given away.
        graph = Path(scratch) / MODEL
        graph.write_bytes(ground.graph.model.read_bytes())
        work = {
            "graph": str(graph),
            "key": ground.graph.key,
            "network": ground.recipe.name,
            "pictures": str(folder / "pictures.npy"),
            "images": str(ground.calibration.folder),
            "selection": str(ground.selection.folder),
            "scratch": scratch,
            "out": str(out),
            "report": str(report),
        }
        (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
        command = [python, *PROGRAM, way, str(folder / "work.json")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=scratch, env=environment
        )
    if done.returncode or not report.is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        ending = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        raise RuntimeError(f"{ending}: {said[-1].strip() if said else 'it said nothing'}")
    cost: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return cost


def judged(validation: Crops, original: NDArray[np.float32], graph: Path, recipe: Recipe) -> dict[str, Any]:
    """Rates and accuracy on the validation pictures, and who was right, picture by picture."""
    assert validation.labels is not None
    logits = graph_logits(graph, validation.pixels, recipe.preprocessing)
    likeness = compare(original, logits)
    finite = np.isfinite(logits).all(axis=1)
    right = (top_k(np.where(finite[:, None], logits, -np.inf))[:, 0] == validation.labels) & finite
    return {
        "likeness": dataclasses.asdict(likeness)
        | {"divergence": likeness.divergence if np.isfinite(likeness.divergence) else None},
        "nonfinite": int((~finite).sum()),
        "original": float(np.mean(top_k(original)[:, 0] == validation.labels)),
        "accuracy": float(np.mean(right)),
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
    }


def looked_at(graph: Path) -> dict[str, Any]:
    """The graph as its maker wrote it: what is in INT8, what the linter and TensorRT for RTX say."""
    model = onnx.load(graph)
    findings = lint(model)
    record: dict[str, Any] = {
        "errors": Counter(each.rule for each in findings if each.severity == "error"),
        "warnings": Counter(each.rule for each in findings if each.severity == "warning"),
        "examples": {each.rule: f"{each.node}: {each.message}" for each in reversed(findings)},
        "bytes": graph.stat().st_size,
    }
    try:
        record["int8_share"] = int8_share(layers(model))
        expected = expected_types(model)
    except CnnxError as error:
        return {**record, "int8_share": None, "rtx": f"not tried: {error}"}
    rtx = runtimes.get("rtx")
    if reason := rtx.missing():
        return {**record, "rtx": f"not tried: {reason}"}
    request = BuildRequest("int8", expected, compute_capabilities=(_CAPABILITY,))
    try:
        rtx.build(graph, request)
        said = "built"
    except CnnxError as error:
        said = error.what
    return {**record, "rtx": said, "rtx_version": rtx.version()}


def _machine() -> str:
    memory = detect().memory_bytes or 0
    cores = "1 core" if usable_cores() == 1 else f"{usable_cores()} cores"
    return f"{cores}, {cpu_model()}, {memory / 2**30:.0f} GiB, no GPU used"


def modelopt_missing(console: Console) -> str | None:
    """Make ModelOpt's venv where there is none; why that cannot be done here, or None."""
    stamp = VENV / "installed.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8").split("\n") == [*MODELOPT]:
        return None
    console.print(f"installing {', '.join(MODELOPT)} into {VENV.relative_to(ROOT)}")
    for command in (
        [sys.executable, "-m", "venv", str(VENV)],
        [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", *MODELOPT],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            return f"ModelOpt could not be installed: {said[-1] if said else 'pip said nothing'}"
    stamp.write_text("\n".join(MODELOPT), encoding="utf-8")
    return None


def fill(
    names: list[str], ways: list[str], *, images: int, large: bool, again: bool, console: Console
) -> None:
    """Run the cells that have no record yet."""
    wanted = [
        (name, [way for way in ways if again or not recorded(name, way, images=images)]) for name in names
    ]
    todo, done = sum(len(missing) for _, missing in wanted), 0
    absent = None
    if any(way.startswith("modelopt-") for _, missing in wanted for way in missing):
        absent = modelopt_missing(console)
    for name, missing in wanted:
        if not missing:
            continue
        console.print(f"{name}: graph, pictures and the original's logits")
        ground = prepare(name, images=images, large=large)
        for way in missing:
            done += 1
            if absent and way.startswith("modelopt-"):
                record: dict[str, Any] = {"name": name, "way": way, "images": images, "failed": absent}
            else:
                record = run_cell(ground, way)
            place(name, way).parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place(name, way)) as draft:
                draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            console.print(f"{done} of {todo}: {name} {way} {_in_words(record)}", markup=False)


def _in_words(record: dict[str, Any]) -> str:
    cost = (
        f"{record['seconds']:.1f} s, {record['peak_bytes'] / 2**20:,.0f} MiB" if "seconds" in record else ""
    )
    if "failed" in record:
        return f"{cost} failed: {record['failed']}"
    if "accuracy" in record:
        cost += f", {record['original']:.2%} -> {record['accuracy']:.2%}"
        cost += f", {record['likeness']['logit_sqnr_db'] or 0:.1f} dB"
    return cost + (
        f", {record['int8_share'] or 0:.0%} in INT8, rtx: {record['rtx']}" if "rtx" in record else ""
    )


def main() -> None:
    """Fill the cells, write the page and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", default="*", help="shell pattern of the networks to run")
    parser.add_argument("--ways", default="*", help=f"shell pattern of: {', '.join(WAYS)}")
    parser.add_argument("--images", type=int, default=VALIDATION_IMAGES, help="validation pictures")
    parser.add_argument("--large", action="store_true", help=f"the cost on {' and '.join(LARGE)} instead")
    parser.add_argument("--again", action="store_true", help="run cells that have a record, too")
    parser.add_argument("--page-only", action="store_true", help="write the page from the records there are")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 250)
    if not options.page_only:
        names = fnmatch.filter(LARGE if options.large else networks(), options.names)
        ways = fnmatch.filter(WAYS, options.ways)
        if not names or not ways:
            parser.error("no network or no way is called so")
        images = 0 if options.large else options.images
        fill(names, ways, images=images, large=options.large, again=options.again, console=console)
    found = records()
    if not found:
        parser.error("there are no records yet: leave out --page-only")
    page.write(found, folder=ROOT / "docs")
    console.print(f"docs/{page.PAGE} and docs/{page.PICTURE}: {len(found)} networks")


if __name__ == "__main__":
    main()
