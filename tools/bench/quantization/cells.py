"""Runs one cell: a network quantized with one method in a separate process, and its results."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.agreement import compare, divergences, top_k
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
from tools import ROOT, imagenet, photographs
from tools.bench.quantization import modelopt
from tools.bench.quantization.records import BLOCKS, LARGE, PHOTOGRAPHED
from tools.resumable import Record

PROGRAM = ("-m", "tools.bench.quantization.ways")
CALIBRATION_IMAGES = 512
LARGE_ENTROPY_IMAGES = 32
_LONG = 60.0  # seconds from which a cell is timed once, not twice
_CAPABILITY = 86


@dataclass(frozen=True, slots=True)
class Ground:
    """Inputs that all methods share, and validation data (none for large networks).

    Attributes:
        source: name or file that cnnx finds the recipe by.
    """

    source: str
    recipe: Recipe
    graph: Fp32Graph
    calibration: Crops
    selection: Crops
    validation: Crops | None
    logits: NDArray[np.float32] | None


def prepare(name: str, *, images: int, large: bool) -> Ground:
    """The FP32 graph, images and original logits of a network; cached."""
    steps, recipe, weights = Steps(), read_recipe(name), "standin" if large else "pretrained"
    if name in PHOTOGRAPHED:
        weights = str(imagenet.checkpoint(name))
    original = open_original(recipe, weights, trust_recipe=False, progress=lambda *_: None)
    graph = export_step(steps, original, batch=(1, 1))

    def crops(split: Split, count: int, *apart: Crops) -> Crops:
        side, color = recipe.preprocessing.side(recipe.input.shape), recipe.preprocessing.drawn_in
        data = "deadleaves" if large else recipe.validation.data
        if name in PHOTOGRAPHED:
            data = str(photographs.tiles("validation" if split == "validation" else "calibration"))
        found = open_images(data, size=side, color=color, split=split)
        return crops_step(steps, found, recipe, count=count, role=split, apart_from=apart)

    validation = None if large else crops("validation", images)
    apart = [] if validation is None else [validation]
    selection = crops("selection", SELECTION_IMAGES, *apart)
    count = LARGE[name] if large else CALIBRATION_IMAGES
    calibration = crops("calibration", count, *apart, selection)
    logits = None
    if validation is not None:
        logits = reference_step(steps, original, graph, validation, recipe).logits
    return Ground(name, recipe, graph, calibration, selection, validation, logits)


def run_cell(ground: Ground, way: str) -> Record:
    """Quantize a network with one method; the cost and the quality."""
    record: Record = {
        "name": ground.recipe.name,
        "way": way,
        "images": len(ground.validation) if ground.validation else 0,
    }
    if way.startswith("modelopt-") and (reason := modelopt.missing()):
        return {**record, "failed": reason}
    record |= {
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
    """Calibration pixels; fewer for histogram methods of peers on large networks (memory)."""
    few = ground.validation is None and way.startswith(("ort-", "modelopt-")) and "max" not in way
    return ground.calibration.pixels[: LARGE_ENTROPY_IMAGES if few else None]


def quantize(ground: Ground, way: str, folder: Path, out: Path) -> Record:
    """Run ways.py once.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    pixels = _calibration_pixels(ground, way)
    np.save(folder / "inputs.npy", normalize(pixels, ground.recipe.preprocessing))
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    python = str(modelopt.VENV / "bin" / "python") if way.startswith("modelopt-") else sys.executable
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # A copy, as ModelOpt writes files next to the graph.
        graph = Path(scratch) / MODEL
        graph.write_bytes(ground.graph.model.read_bytes())
        work = {
            "graph": str(graph),
            "key": ground.graph.key,
            "network": ground.source,
            "inputs": str(folder / "inputs.npy"),
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
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        ending = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        raise RuntimeError(f"{ending}: {lines[-1].strip() if lines else 'no output'}")
    cost: Record = json.loads(report.read_text(encoding="utf-8"))
    return cost


def judged(validation: Crops, original: NDArray[np.float32], graph: Path, recipe: Recipe) -> Record:
    """Agreement on the validation images, divergence by block of them, and accuracy if they have labels."""
    logits = graph_logits(graph, validation.pixels, recipe.preprocessing)
    likeness = compare(original, logits)
    finite = np.isfinite(logits).all(axis=1)
    found: Record = {
        "likeness": dataclasses.asdict(likeness)
        | {"divergence": likeness.divergence if np.isfinite(likeness.divergence) else None},
        "nonfinite": int((~finite).sum()),
    }
    if finite.all():
        blocks = np.array_split(divergences(original, logits), min(BLOCKS, len(logits)))
        found["divergence_by_block"] = [float(f"{block.mean():.5g}") for block in blocks]
    if validation.labels is None:
        return found
    right = (top_k(np.where(finite[:, None], logits, -np.inf))[:, 0] == validation.labels) & finite
    return found | {
        "original": float(np.mean(top_k(original)[:, 0] == validation.labels)),
        "accuracy": float(np.mean(right)),
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
    }


def looked_at(graph: Path) -> Record:
    """Facts about a graph: share in INT8, linter findings, TensorRT for RTX's result."""
    model = onnx.load(graph)
    findings = lint(model)
    record: Record = {
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
