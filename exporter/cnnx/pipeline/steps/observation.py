"""Runs images through a graph and records statistics of its activations."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnnx.data.normalize import normalize
from cnnx.pipeline.progress import Progress
from cnnx.pipeline.steps.artefacts import Fp32Graph
from cnnx.pipeline.steps.inference import open_here, ran_by
from cnnx.quant.observation import Observation, Seen, observe
from cnnx.recipe import Recipe
from cnnx.store.cache import Partial

if TYPE_CHECKING:
    from onnx import ModelProto

    from cnnx.data.crops import Crops

# A calibration that is killed loses at most this much work.
_SAVE_SECONDS = 20.0


def observed_from(graph: Fp32Graph, crops: Crops, recipe: Recipe) -> dict[str, Any]:
    """What `observed` depends on, except code."""
    return {
        "graph": graph.key,
        "crops": crops.key,
        "preprocessing": recipe.preprocessing.as_key(),
        **ran_by(),
    }


def observed(
    model: ModelProto,
    pixels: NDArray[np.uint8],
    recipe: Recipe,
    *,
    folder: Path,
    progress: Progress,
    sampled: Sequence[str] = (),
    one_sided: Collection[str] = (),
    partial: Partial | None = None,
    threads: int | None = None,
) -> Observation:
    """Run images through a graph that outputs statistics of its activations.

    Args:
        model: the FP32 graph.
        pixels: images (N, H, W, C).
        recipe: the network's recipe, for its preprocessing.
        sampled: tensors to take histograms of.
        one_sided: sampled tensors that are never negative.
        folder: folder for temporary files.
        progress: called with (images done, images in all).
        partial: file to save intermediate results to, and to resume from.
        threads: CPU threads; None: all physical cores.
    """
    from cnnx.graph.load import input_shape, save_model
    from cnnx.graph.passes.observe import MAXIMA, MEANS, SAMPLE, observed_model

    observed = observed_model(model, sampled=sampled)
    scratch = folder / "observed.onnx"
    save_model(observed.model, scratch)
    seen = Observation(observed.channels, observed.samples, one_sided)
    if partial is not None and (kept := partial.load()) is not None:
        resumed = folder / "resumed.npz"
        resumed.write_bytes(kept)
        seen = Observation.load(resumed)
        resumed.unlink()
    batch = input_shape(model)[0]
    size = batch if isinstance(batch, int) else 1
    del observed
    session = open_here(scratch, threads=threads)
    scratch.unlink()
    saved = time.monotonic()

    def watch(batch: NDArray[np.float32]) -> Seen:
        # If too few images are left to fill a fixed batch, some are repeated and count twice.
        outputs = session.run(batch[np.arange(size) % len(batch)])
        return Seen(outputs[MAXIMA], outputs[MEANS], outputs.get(SAMPLE, np.empty(0, np.float32)))

    def note(done: int) -> None:
        nonlocal saved
        progress(done, len(pixels))
        if partial is not None and time.monotonic() - saved > _SAVE_SECONDS:
            partial.save(seen.save)
            saved = time.monotonic()

    rest = (
        normalize(pixels[start : start + size], recipe.preprocessing)
        for start in range(seen.images, len(pixels), size)
    )
    observe(watch, rest, seen, progress=note)
    session.close()
    return seen
