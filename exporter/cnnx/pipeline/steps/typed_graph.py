"""The steps that take files and give files: each is found in the store when nothing it depends on changed.

A step's inputs name, as plain data, everything its result depends on: the keys of the steps before it,
options, our own code, and versions of the tools it calls.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.agreement import run_logits
from cnnx.data.crops import Crops, fingerprint, write_crops
from cnnx.data.images import ImageSet
from cnnx.data.normalize import normalize
from cnnx.environment import detect, installed_version
from cnnx.errors import BuildFailed, InputRefused
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.original import Batch, Original, open_here, ran_by
from cnnx.quant.calibration import Calibration
from cnnx.recipe import Precision, Preprocessing, Recipe, Scales
from cnnx.store import Entry, code_digest, digest_of_file

MODEL, NOTES, LOGITS, RANGES, LAYERS, BUILT = (
    "model.onnx",
    "notes.json",
    "logits.npy",
    "calibration.json",
    "layers.json",
    "built.json",
)

# PyTorch and ONNX Runtime must agree in FP32 to this, as max|a-b| / max|b|.
EXPORT_TOLERANCE = 1e-4
PARITY_IMAGES = 4
_BATCH = 8


def crops_step(
    steps: Steps, images: ImageSet, recipe: Recipe, *, count: int, role: str, apart_from: Sequence[Crops] = ()
) -> Crops:
    """Decode the pictures of one role, once.

    Args:
        count: how many at most.
        role: "calibration", "selection", "validation" or "held-out".
        apart_from: sets whose pictures must not be among them.
    """
    exclude = frozenset(digest for crops in apart_from for digest in crops.digests)
    inputs = {
        "images": fingerprint(images, count=count, exclude=exclude),
        "count": count,
        "preprocessing": dataclasses.asdict(recipe.preprocessing),
        "shape": recipe.input.shape,
        "code": code_digest("cnnx.data"),
        "pillow": installed_version("pillow"),
    }

    def fill(folder: Path, progress: Progress) -> None:
        write_crops(
            images,
            recipe.preprocessing,
            shape=recipe.input.shape,
            count=count,
            folder=folder,
            exclude=exclude,
            progress=progress,
        )

    return Crops.open(steps.make(f"{role} pictures", "crops", inputs, fill).folder)


def export_step(steps: Steps, original: Original, *, batch: Batch) -> Entry:
    """The original's simplified FP32 graph, and what loading its weights had to say."""
    inputs = {"original": original.key(), "batch": batch, "onnx": installed_version("onnx")}

    def fill(folder: Path, _: Progress) -> None:
        original.export(folder / MODEL, batch)
        (folder / NOTES).write_text(json.dumps(original.notes) + "\n", encoding="utf-8")

    return steps.make("ONNX graph", "export", inputs, fill)


def reference_step(steps: Steps, original: Original, graph: Entry, crops: Crops, recipe: Recipe) -> Entry:
    """The original's logits for the validation pictures; the exported graph is checked against them.

    Raises:
        BuildFailed: the FP32 graph and the original disagree.
    """
    inputs = {
        "original": graph.key,
        "crops": crops.key,
        "preprocessing": dataclasses.asdict(recipe.preprocessing),
        "code": code_digest("cnnx.runtimes.eager", "cnnx.runtimes.ort", "cnnx.data.normalize"),
        **ran_by(),
    }

    def fill(folder: Path, progress: Progress) -> None:
        session = original.session()
        logits = logits_of(session, crops.pixels, recipe.preprocessing, progress=progress)
        session.close()
        original.release()
        refuse_nonfinite(logits, recipe)
        check_parity(graph.folder / MODEL, crops.pixels[:PARITY_IMAGES], logits, recipe)
        np.save(folder / LOGITS, logits)

    return steps.make("original's logits", "reference", inputs, fill)


def logits_of(
    session: runtimes.Session, pixels: NDArray[np.uint8], preprocessing: Preprocessing, *, progress: Progress
) -> NDArray[np.float32]:
    """A session's logits for crops (N, H, W, C): (N, classes)."""

    def run(part: NDArray[np.uint8]) -> NDArray[np.float32]:
        return session.run(normalize(part, preprocessing))[session.output_names[0]]

    return run_logits(run, pixels, batch=_BATCH, progress=lambda done: progress(done, len(pixels)))


def graph_logits(
    graph: Path, pixels: NDArray[np.uint8], preprocessing: Preprocessing, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Logits of an ONNX graph on ONNX Runtime, for crops (N, H, W, C): (N, classes)."""
    session = open_here("ort", graph)
    logits = logits_of(session, pixels, preprocessing, progress=progress or (lambda *_: None))
    session.close()
    return logits


def refuse_nonfinite(logits: NDArray[np.float32], recipe: Recipe) -> None:
    """Refuse an original that has no answer in FP32: there is nothing to agree with.

    Raises:
        InputRefused: a logit is NaN or infinite.
    """
    bad = int((~np.isfinite(logits).all(axis=1)).sum())
    if bad:
        raise InputRefused(
            f"the original gives logits that are not finite for {bad} of {len(logits)} pictures",
            where=recipe.name,
            mend="mend its weights or its preprocessing; what it makes of a picture must be a number",
        )


def check_parity(
    graph: Path,
    pixels: NDArray[np.uint8],
    logits: NDArray[np.float32],
    recipe: Recipe,
    *,
    what: str = "the exported FP32 graph is not the original",
    mend: str = "report it with the model's definition; nothing made from this graph can be trusted",
) -> None:
    """Refuse a graph whose logits for these pictures are not the original's.

    Raises:
        BuildFailed: they are further apart than `EXPORT_TOLERANCE`.
        InputRefused: they are not finite.
    """
    exported = graph_logits(graph, pixels, recipe.preprocessing)
    expected = logits[: len(exported)]
    refuse_nonfinite(expected, recipe)
    error = float(np.abs(exported - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    if not error <= EXPORT_TOLERANCE:
        raise BuildFailed(
            f"{what}: max|a-b|/max|b| is {error:.2g}, at most {EXPORT_TOLERANCE:g} is allowed",
            where=recipe.name,
            mend=mend,
        )


def graph_step(
    steps: Steps,
    graph: Entry,
    calibration: Entry | None,
    recipe: Recipe,
    *,
    precision: Precision,
    scales: Scales,
) -> Entry:
    """The typed or Q/DQ graph, linted, and the plan of its layers; what every target compiles.

    Raises:
        GraphError: TensorRT would refuse the graph.
    """
    inputs = {
        "graph": graph.key,
        "calibration": calibration.key if calibration else None,
        "precision": precision,
        "scales": scales,
        "policy": dataclasses.asdict(recipe.precision),
        "code": code_digest(
            "cnnx.graph.placement",
            "cnnx.graph.qdq",
            "cnnx.graph.fp16",
            "cnnx.graph.lint",
            "cnnx.quant",
            "cnnx.graph.inspect",
        ),
        "onnx": installed_version("onnx"),
    }

    def fill(folder: Path, _: Progress) -> None:
        observed = read_calibration(calibration) if calibration else None
        type_graph(folder, graph, observed, recipe, precision=precision, scales=scales)

    return steps.make(f"{precision} graph", "graph", inputs, fill)


def type_graph(
    folder: Path,
    graph: Entry,
    observed: Calibration | None,
    recipe: Recipe,
    *,
    precision: Precision,
    scales: Scales,
) -> None:
    """Write the typed graph and the plan of its layers into a folder.

    Raises:
        GraphError: TensorRT would refuse the graph.
    """
    from cnnx.graph.fp16 import type_fp16
    from cnnx.graph.inspect import int8_share, left_out
    from cnnx.graph.inspect import layers as inspect_layers
    from cnnx.graph.lint import lint, refuse
    from cnnx.graph.load import load_model, logits_name, save_model
    from cnnx.graph.placement import plan_layers
    from cnnx.graph.qdq import insert_qdq

    model = load_model(graph.folder / MODEL)
    maxima = observed_maxima(observed) if observed else None
    plan = plan_layers(model, precision=precision, policy=recipe.precision, maxima=maxima, scales=scales)
    if precision == "int8" and observed:
        ranges = {name: tensor.amax for name, tensor in observed.ranges.items()}
        model = insert_qdq(model, plan, ranges=ranges, scales=scales, means=observed.means)
    if precision == "fp16" or (precision == "int8" and scales == "fp16"):
        model = type_fp16(model, plan)
    findings = lint(model)
    refuse(findings, where=recipe.name)
    save_model(model, folder / MODEL)
    rows = inspect_layers(model) if precision == "int8" else ()
    described = {
        "output": logits_name(model),
        "int8_share": int8_share(rows),
        "left_out": left_out(rows, {layer.node: layer.reason for layer in plan})[0],
        "costs": {row.name: row.multiply_adds for row in rows if row.data_type == "int8"},
        "layers": [dataclasses.asdict(layer) for layer in plan],
        "warnings": [dataclasses.asdict(finding) for finding in findings],
    }
    (folder / LAYERS).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def observed_maxima(calibration: Calibration) -> dict[str, float]:
    """What a plan goes by: the largest |x| of each activation, infinite where it had values not finite."""
    return {**calibration.maxima, **dict.fromkeys(calibration.nonfinite, math.inf)}


def read_calibration(entry: Entry) -> Calibration:
    """The calibration that a step left."""
    return Calibration.from_json((entry.folder / RANGES).read_text(encoding="utf-8"))


def engine_step(
    steps: Steps, model: Path, *, runtime: runtimes.Runtime, request: runtimes.BuildRequest
) -> Entry:
    """Engines built from a graph: one folder each, with the plain file and what the build said of it.

    Raises:
        BuildFailed: the builder refused, or the asked precision was not reached.
    """
    asked = dataclasses.asdict(request)
    asked["options"].pop("timing_cache_folder")
    inputs = {
        "graph": digest_of_file(model),
        "runtime": runtime.name,
        "version": runtime.version(),
        "request": asked,
        "device": None if request.compute_capabilities else _device_here(runtime),
        "code": code_digest(runtimes.NAMES[runtime.name]),
    }

    def fill(folder: Path, _: Progress) -> None:
        for built in runtime.build(model, request):
            place = folder / built.identity
            place.mkdir()
            (place / built.file_name).write_bytes(built.plan)
            said = {
                "identity": built.identity,
                "file": built.file_name,
                "runtime_version": built.runtime_version,
                "target": built.target,
                "layer_types": built.layer_types,
                "reach": built.reach,
                "version_compatible": built.version_compatible,
                "dla_core": built.dla_core,
                "on_gpu": built.on_gpu,
                "timing_cache": built.timing_cache,
                "remarks": built.remarks,
            }
            (place / BUILT).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")

    return steps.make(f"{runtime.name} engine", "engine", inputs, fill)


def _device_here(runtime: runtimes.Runtime) -> list[str | None]:
    """What an engine for no named GPU is for: a cache may be shared by several machines.

    The board, too, as GPUs of one name differ in size between boards; CUDA's name, as NVML may be absent.
    """
    return [detect().board, runtime.device() if runtime.cannot_run() is None else None]
