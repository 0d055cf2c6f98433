"""What the calibration pictures are for: channels equalized, values observed, ranges chosen."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnnx.data.crops import Crops
from cnnx.data.normalize import normalize
from cnnx.errors import BundleError
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.original import open_here, ran_by
from cnnx.pipeline.steps.typed_graph import MODEL, PARITY_IMAGES, RANGES, check_parity, graph_logits
from cnnx.quant.calibration import calibration_of
from cnnx.quant.observation import Observation, Seen, observe
from cnnx.recipe import Precision, Recipe, Scales
from cnnx.store import Entry, atomic_file, code_digest, digest_of_file

if TYPE_CHECKING:
    from onnx import ModelProto

STATISTICS = "statistics.npz"

# A calibration that is killed loses what it saw since, at most.
_SAVE_SECONDS = 20.0
# Equalization wants the largest value of a channel to within a factor, not to within a percent.
_EQUALIZE_IMAGES = 64


def equalize_step(steps: Steps, graph: Entry, crops: Crops, recipe: Recipe) -> Entry:
    """The FP32 graph with its channels scaled, by what the first calibration pictures show of them.

    Raises:
        BuildFailed: it computes something else than before.
    """
    inputs = {**_observed_from(graph, crops, recipe), "equalize": code_digest("cnnx.graph.equalize")}

    def fill(folder: Path, progress: Progress) -> None:
        from cnnx.graph.equalize import equalize
        from cnnx.graph.load import load_model, save_model

        pixels = crops.pixels[:_EQUALIZE_IMAGES]
        model = load_model(graph.folder / MODEL)
        seen = _observed(model, pixels, recipe, folder=folder, progress=progress)
        equalize(model, {name: seen.channel_maxima(name) for name in seen.watched})
        save_model(model, folder / MODEL)
        few = pixels[:PARITY_IMAGES]
        check_parity(
            folder / MODEL,
            few,
            graph_logits(graph.folder / MODEL, few, recipe.preprocessing),
            recipe,
            what="the graph with equalized channels is not the graph before",
            mend="export with --no-equalize, and report it",
        )

    return steps.make("equalized channels", "equalized", inputs, fill)


def statistics_step(
    steps: Steps,
    graph: Entry,
    crops: Crops,
    recipe: Recipe,
    *,
    precision: Precision,
    parts: Sequence[Entry] = (),
    title: str = "calibration pictures through the graph",
) -> Entry:
    """What the calibration pictures show of the graph: `statistics.npz`, which serves every method.

    A step that was stopped goes on from what it saved on the way.

    Args:
        parts: this step's results for sets that together are these pictures, batch for batch: they are
            added up instead.
    """
    inputs = {
        **_observed_from(graph, crops, recipe),
        "precision": precision,
        "policy": dataclasses.asdict(recipe.precision),
        "placement": code_digest("cnnx.graph.placement"),
    }
    partial = steps.store.partial("statistics", inputs)

    def fill(folder: Path, progress: Progress) -> None:
        from cnnx.graph.load import load_model
        from cnnx.graph.placement import plan_layers, tensors_to_observe

        if parts:
            _merged(parts).save(folder / STATISTICS)
            return
        model = load_model(graph.folder / MODEL)
        tensors: dict[str, None] = {}
        # FP32 scales quantize layers that FP16 could not hold; one pass serves either type.
        types: tuple[Scales, ...] = ("fp16", "fp32") if precision == "int8" else ()
        for scales in types:
            plan = plan_layers(
                model, precision=precision, policy=recipe.precision, maxima=None, scales=scales
            )
            tensors.update(dict.fromkeys(tensors_to_observe(model, plan)))
        seen = _observed(
            model,
            crops.pixels,
            recipe,
            sampled=tuple(tensors),
            folder=folder,
            partial=partial,
            progress=progress,
        )
        seen.save(folder / STATISTICS)
        partial.unlink(missing_ok=True)

    return steps.make(title, "statistics", inputs, fill)


def _merged(parts: Sequence[Entry]) -> Observation:
    first, *others = (Observation.load(part.folder / STATISTICS) for part in parts)
    for other in others:
        first.merge(other)
    return first


def _observed_from(graph: Entry, crops: Crops, recipe: Recipe) -> dict[str, Any]:
    """What `_observed` depends on."""
    return {
        "graph": graph.key,
        "crops": crops.key,
        "preprocessing": dataclasses.asdict(recipe.preprocessing),
        # Of this file itself, not of all it imports: a new method needs no new pass over the pictures.
        "here": digest_of_file(Path(__file__)),
        "code": code_digest(
            "cnnx.graph.observe", "cnnx.quant.observation", "cnnx.runtimes.ort", "cnnx.data.normalize"
        ),
        **ran_by(),
    }


def _observed(
    model: ModelProto,
    pixels: NDArray[np.uint8],
    recipe: Recipe,
    *,
    folder: Path,
    progress: Progress,
    sampled: Sequence[str] = (),
    partial: Path | None = None,
) -> Observation:
    """Run pictures (N, H, W, C) through a graph that watches itself.

    Args:
        sampled: tensors to take histograms of.
        folder: for files that are gone afterwards.
        partial: where to save what was seen so far, and to go on from.
    """
    from cnnx.graph.load import input_shape, save_model
    from cnnx.graph.observe import MAXIMA, MEANS, SAMPLE, observed_model

    observed = observed_model(model, sampled=sampled)
    scratch = folder / "observed.onnx"
    save_model(observed.model, scratch)
    seen = Observation(observed.channels, observed.samples)
    if partial is not None and partial.is_file():
        with contextlib.suppress(BundleError):  # a damaged one: begin anew
            seen = Observation.load(partial)
    batch = input_shape(model)[0]
    size = batch if isinstance(batch, int) else 1
    del observed
    session = open_here("ort", scratch)
    scratch.unlink()
    saved = time.monotonic()

    def watch(batch: NDArray[np.float32]) -> Seen:
        # Where too few are left for a graph of fixed batch, it reads some of them twice, and they count
        # twice: fewer pictures than a batch has.
        outputs = session.run(batch[np.arange(size) % len(batch)])
        return Seen(outputs[MAXIMA], outputs[MEANS], outputs.get(SAMPLE, np.empty(0, np.float32)))

    def note(done: int) -> None:
        nonlocal saved
        progress(done, len(pixels))
        if partial is not None and time.monotonic() - saved > _SAVE_SECONDS:
            with atomic_file(partial) as draft:
                seen.save(draft)
            saved = time.monotonic()

    rest = (
        normalize(pixels[place : place + size], recipe.preprocessing)
        for place in range(seen.images, len(pixels), size)
    )
    observe(watch, rest, seen, progress=note)
    session.close()
    return seen


def calibration_step(steps: Steps, statistics: Entry, crops: Crops, *, method: str) -> Entry:
    """Ranges of the tensors to be quantized, and maxima of all; `calibration.json` in its folder."""
    inputs = {"statistics": statistics.key, "method": method, "code": code_digest("cnnx.quant")}

    def fill(folder: Path, _: Progress) -> None:
        seen = Observation.load(statistics.folder / STATISTICS)
        calibration = calibration_of(seen, method=method, images_digest=crops.list_digest)
        (folder / RANGES).write_text(calibration.to_json(), encoding="utf-8")

    return steps.make(f"ranges ({method})", "calibration", inputs, fill)
