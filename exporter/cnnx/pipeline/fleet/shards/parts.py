"""The files of a shard's job and of its answer, as the tasks on a node read and write them.

pixels.npy         crops of the shard, as decoded on the head
probe.npy          crops of the first batch of all images, which every node also runs
shard/, probe/     the answer for each of them: logits.npy or statistics.npz
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx import runtimes
from cnnx.pipeline.progress import Listener, Progress, ProgressEvent
from cnnx.pipeline.steps.artefacts import write_logits
from cnnx.pipeline.steps.inference import logits_of
from cnnx.pipeline.steps.original import TorchOriginal
from cnnx.preprocessing.input_format import InputFormat
from cnnx.recipe import Recipe, recipe_from_dict
from cnnx.weights import Weights

SHARD, PROBE = "shard", "probe"
RECIPE, WEIGHTS, BUNDLE = "recipe", "weights", "bundle"
"""Folders of a job's files."""
FILES = {SHARD: "pixels.npy", PROBE: "probe.npy"}


def pixels_of(files: Path, part: str) -> NDArray[np.uint8]:
    """The crops of a part, (N, H, W, C)."""
    pixels: NDArray[np.uint8] = np.load(files / FILES[part], mmap_mode="r", allow_pickle=False)
    return pixels


def progress_of(listener: Listener, title: str) -> Progress:
    """Passes the progress of a task to its listener."""
    return lambda done, total: listener(ProgressEvent(title, done, total))


def run_parts(
    session: runtimes.Session,
    files: Path,
    out: Path,
    recipe: Recipe,
    *,
    form: InputFormat | None = None,
    listener: Listener,
) -> None:
    """Write the logits of the probe and of the shard, by one session, and close it."""
    for part in (PROBE, SHARD):
        (out / part).mkdir()
        progress = progress_of(listener, "logits")
        pixels = pixels_of(files, part)
        write_logits(
            out / part, logits_of(session, pixels, recipe.preprocessing, form=form, progress=progress)
        )
    session.close()


def recipe_in(arguments: Mapping[str, Any], files: Path) -> Recipe:
    """The recipe that a job states; its files are in the job's folder `RECIPE`.

    Raises:
        RecipeError: it is not valid.
    """
    return recipe_from_dict(arguments["recipe"], where=files / RECIPE / "recipe.toml")


def torch_original(arguments: Mapping[str, Any], files: Path) -> TorchOriginal:
    """The PyTorch definition that a job states, with its weights.

    Raises:
        RecipeError: its recipe is not valid.
    """
    kind, origin, digest, name = (arguments["weights"][key] for key in ("kind", "origin", "digest", "file"))
    weights = Weights(kind, origin, digest, None if name is None else files / WEIGHTS / name)
    return TorchOriginal(recipe_in(arguments, files), weights, trust_recipe=arguments["trusted"])
