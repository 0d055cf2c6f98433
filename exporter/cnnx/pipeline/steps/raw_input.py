"""The step that lets the typed graph take pixels, and checks what that changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import first_classes
from cnnx.data.crops import Crops
from cnnx.data.geometry import crop
from cnnx.data.given import as_image
from cnnx.data.network_input import network_input
from cnnx.errors import BuildFailed
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.steps.artefacts import LAYERS, MODEL, TypedGraph
from cnnx.pipeline.steps.images import crops_step, image_set
from cnnx.pipeline.steps.inference import RUNNER, graph_logits, open_here, ran_by, relative_error
from cnnx.recipe import Recipe
from cnnx.store.files import scratch_folder
from cnnx.store.own_code import own_code

TOLERANCE = 1e-3
"""Largest difference allowed between the logits with and without normalization in the graph, relative."""
_IMAGES, _FRAMES = 32, 32


def raw_input_step(
    steps: Steps, typed: TypedGraph, images: Crops, recipe: Recipe, *, labels: Path | None = None
) -> TypedGraph:
    """The typed graph, taking pixels as `recipe.input.format` states.

    Args:
        steps: runs the step.
        typed: the graph that takes normalized floats.
        images: validation images.
        recipe: the network's recipe.
        labels: label file of a flat validation folder.

    Raises:
        BuildFailed: a graph that does not resize gives different logits.
    """
    form = recipe.input_format
    frames = None
    if form.frame is not None:
        frames = _frames(steps, recipe, labels)
    inputs = {
        "graph": typed.key,
        "format": str(form),
        "preprocessing": recipe.preprocessing.as_key(),
        "shape": recipe.input.shape,
        "images": images.key,
        "frames": frames.key if frames else None,
        "code": own_code(__name__, RUNNER),
        **ran_by(),
    }

    def fill(folder: Path, _: Progress) -> None:
        write_raw_input(typed.model, folder / MODEL, recipe)
        described = typed.described
        if frames is None:
            _check(typed.model, folder / MODEL, images, recipe)
        else:
            described["input_notes"] = [_difference(typed.model, folder / MODEL, frames, recipe)]
        (folder / LAYERS).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")

    return TypedGraph(steps.make("input", "raw-input", inputs, fill))


def write_raw_input(model: Path, out: Path, recipe: Recipe) -> None:
    """Write a typed graph that takes pixels as `recipe.input.format` states; the files may be the same."""
    from cnnx.graph.lint import lint, refuse
    from cnnx.graph.load import load_model, save_model
    from cnnx.graph.passes.raw_input import with_raw_input

    raw = with_raw_input(
        load_model(model), recipe.input_format, recipe.preprocessing, shape=recipe.input.shape
    )
    refuse(lint(raw), where=recipe.name)
    save_model(raw, out)


def _frames(steps: Steps, recipe: Recipe, labels: Path | None) -> Crops:
    """Validation images at the size of a camera's, whatever their own aspect ratio."""
    height, width = recipe.input_format.frame or recipe.input.shape[1:]
    camera = dataclasses.replace(
        recipe.preprocessing, fit="squash", resize=(height, width), interpolation="bilinear"
    )
    shape = (recipe.input.shape[0], height, width)
    recipe = dataclasses.replace(
        recipe, preprocessing=camera, input=dataclasses.replace(recipe.input, shape=shape)
    )
    images = image_set(recipe, recipe.validation.data, "validation", labels)
    return crops_step(steps, images, recipe, count=_FRAMES, role="frames")


def _check(typed: Path, raw: Path, images: Crops, recipe: Recipe) -> None:
    pixels = images.pixels[:_IMAGES]
    expected = graph_logits(typed, pixels, recipe.preprocessing)
    found = graph_logits(raw, pixels, recipe.preprocessing, form=recipe.input_format)
    error = relative_error(expected, found)
    if not error <= TOLERANCE:
        raise BuildFailed(
            f"normalization in the graph changes the logits: max|a-b|/max|b| is {error:.2g}, the limit is "
            f"{TOLERANCE:g}",
            where=recipe.name,
            hint="please report this with the recipe; export without --input meanwhile",
        )


def _difference(typed: Path, raw: Path, frames: Crops, recipe: Recipe) -> str:
    """What the graph's Resize changes, in words."""
    preprocessing, form, shape = recipe.preprocessing, recipe.input_format, recipe.input.shape
    assert form.frame is not None
    upright = dataclasses.replace(preprocessing, exif=False)
    rgb = frames.pixels[..., ::-1] if preprocessing.color == "bgr" else frames.pixels
    crops = np.stack([crop(as_image(frame), upright, shape) for frame in rgb])
    before = graph_logits(typed, crops, preprocessing)
    after = graph_logits(raw, frames.pixels, preprocessing, form=form)
    changed = int((first_classes(before) != first_classes(after)).sum())
    levels = np.abs(_resized_in_graph(frames, recipe) - crops.transpose(0, 3, 1, 2)).mean()
    library = "Pillow's" if preprocessing.resampling == "pillow" else "OpenCV's"
    return (
        "The graph resizes images of {} x {} without antialiasing. ".format(*form.frame)
        + f"On {len(crops)} validation images, its pixels differ from {library} by {levels:.1f} of 255 on "
        f"average, and the top class of {changed} changes."
    )


def _resized_in_graph(frames: Crops, recipe: Recipe) -> NDArray[np.float32]:
    """The crops that the graph makes of frames, (N, C, H, W)."""
    from cnnx.graph.load import save_model
    from cnnx.graph.passes.raw_input import resize_alone

    form, preprocessing = recipe.input_format, recipe.preprocessing
    with scratch_folder() as scratch:
        file = scratch / MODEL
        save_model(resize_alone(form, preprocessing, shape=recipe.input.shape), file)
        session = open_here(file)
        crops = session.run(network_input(frames.pixels, preprocessing, form))["crops"]
        session.close()
    return crops
