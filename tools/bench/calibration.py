"""Measure the cost of a calibration pass relative to plain inference, and the effect of sampling on ranges.

python -m tools.bench.calibration [NETWORK] [--images N,N] [--ranges]

Uses images of `deadleaves`, and stand-in weights for networks that ship without weights. The passes run in
turns at batch 1, each in a separate process. Prints the ratio of their times and the peak memory of each.
With --ranges, compares the ranges that each method takes from samples with those from all values.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import cnnx
from cnnx.data.normalize import normalize
from cnnx.graph.load import load_model, save_model
from cnnx.graph.passes import observe as observing
from cnnx.graph.policy.placement import plan_layers, tensors_to_observe
from cnnx.quant.methods import METHODS
from cnnx.quant.observation import Observation, Seen, observe
from cnnx.quant.ranges import calibration_of
from cnnx.recipe import Recipe, read_recipe
from cnnx.runtimes import get
from tools.crops import crops_of
from tools.memory import memory


def observed(graph: Path, recipe: Recipe, pixels: NDArray[np.uint8], *, sampled: int) -> Observation:
    """Run one pass that keeps at most `sampled` values per tensor and image."""
    observing.SAMPLED = sampled
    model = load_model(graph)
    plan = plan_layers(model, precision="int8", policy=recipe.precision, maxima=None)
    watched = observing.observed_model(model, sampled=tensors_to_observe(model, plan))
    with tempfile.TemporaryDirectory() as folder:
        save_model(watched.model, Path(folder) / "observed.onnx")
        del model
        session = get("ort").open(Path(folder) / "observed.onnx")
    seen = Observation(watched.channels, watched.samples)

    def watch(batch: NDArray[np.float32]) -> Seen:
        outputs = session.run(batch)
        return Seen(outputs[observing.MAXIMA], outputs[observing.MEANS], outputs[observing.SAMPLE])

    batches = (normalize(pixels[i : i + 1], recipe.preprocessing) for i in range(len(pixels)))
    observe(watch, batches, seen, progress=lambda _: None)
    return seen


def plain(graph: Path, recipe: Recipe, pixels: NDArray[np.uint8]) -> None:
    """Run the same images through the unmodified graph."""
    session = get("ort").open(graph)
    for i in range(len(pixels)):
        session.run(normalize(pixels[i : i + 1], recipe.preprocessing))


def run_pass(kind: str, graph: Path, recipe: Recipe, images: int) -> dict[str, Any]:
    """Time one pass in this process; a calibrating pass computes all ranges."""
    pixels, _ = crops_of(recipe, "deadleaves", "calibration", images)
    started = time.perf_counter()
    if kind == "plain":
        plain(graph, recipe, pixels)
    else:
        seen = observed(graph, recipe, pixels, sampled=4096)
        for method in METHODS:
            calibration_of(seen, method=method, images_digest="")
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_bytes": memory("VmHWM")}


def costs(name: str, graph: Path, images: int, console: Console) -> None:
    """Print the cost of plain and calibrating passes, run twice in turns in separate processes."""
    table = Table(
        "pass", "seconds", "ms per image", "relative to plain", "peak MiB", title=f"{name}, {images} images"
    )
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "calibration, all methods": []}
    for _ in range(2):
        for kind, runs in found.items():
            command = [sys.executable, "-m", "tools.bench.calibration", name]
            command += ["--images", str(images), "--pass", kind, str(graph)]
            runs.append(
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            )
    base = min(run["seconds"] for run in found["plain"])
    for kind, runs in found.items():
        best = min(run["seconds"] for run in runs)
        peak = max(run["peak_bytes"] for run in runs) / 2**20
        table.add_row(kind, f"{best:.1f}", f"{1e3 * best / images:.1f}", f"{best / base:.2f}", f"{peak:,.0f}")
    console.print(table)


def shifts(name: str, graph: Path, recipe: Recipe, images: int, console: Console) -> None:
    """Print the change of each method's ranges relative to ranges from all values."""
    pixels, _ = crops_of(recipe, "deadleaves", "calibration", images)
    few, all_values = (observed(graph, recipe, pixels, sampled=each) for each in (4096, 1 << 40))
    title = f"{name}, {images} images: ranges from samples relative to all values"
    table = Table("method", "median change", "95 % within", "largest", title=title)
    for method in METHODS:
        one, other = (
            calibration_of(seen, method=method, images_digest="").ranges for seen in (few, all_values)
        )
        change = np.abs([one[t].amax / other[t].amax - 1 for t in one if other[t].amax])
        table.add_row(
            method, *(f"{q:.2%}" for q in (np.median(change), np.quantile(change, 0.95), change.max()))
        )
    console.print(table)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", nargs="?", default="resnet50", help="name of a recipe")
    parser.add_argument("--images", default="64,512", help="numbers of images, one table each")
    parser.add_argument("--ranges", action="store_true", help="compare ranges instead of times")
    parser.add_argument(
        "--pass", dest="only", nargs=2, metavar=("KIND", "GRAPH"), help="run one pass and print its cost"
    )
    options = parser.parse_args()
    recipe = read_recipe(options.network)
    counts = [int(each) for each in options.images.split(",")]
    if options.only:
        print(json.dumps(run_pass(options.only[0], Path(options.only[1]), recipe, counts[0])))
        return
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        weights = "pretrained" if recipe.weights.file and not recipe.weights.url else "standin"
        bundle = Path(folder) / "fp32"
        cnnx.export(
            options.network, precision="fp32", weights=weights, target="ort", validation_images=2, out=bundle
        )
        graph = bundle / "model.onnx"
        for count in counts:
            if options.ranges:
                shifts(options.network, graph, recipe, count, console)
            else:
                costs(options.network, graph, count, console)


if __name__ == "__main__":
    main()
