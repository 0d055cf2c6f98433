"""The images of a search: selection images to choose by, and the bundle's validation images to judge by."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.bundle import REFERENCE, Bundle
from cnnx.data.crops import Crops
from cnnx.errors import BundleError, ImageError, UsageError
from cnnx.options.bundles import TuneOptions
from cnnx.options.shared import SourceOptions
from cnnx.pipeline.diagnose.rebuild import check_reference, recipe_here
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.source import Source
from cnnx.pipeline.steps.floor import floor_step
from cnnx.pipeline.steps.images import crops_step, image_set
from cnnx.pipeline.steps.inference import EXPORT_TOLERANCE, graph_logits, relative_error
from cnnx.pipeline.steps.original import open_reference
from cnnx.pipeline.steps.reference import judge_step
from cnnx.recipe import Recipe

IMAGES = 512
"""Number of selection images by default."""
# With fewer images, agreement on them means little.
_FEW = 64


@dataclass(frozen=True, slots=True)
class TuningImages:
    """Images of a search.

    Attributes:
        recipe: the bundle's recipe, with the paths of images here.
        selection: images to choose by.
        validation: images to judge the chosen engine by.
        notes: notes for the user.
    """

    recipe: Recipe
    selection: Crops
    validation: Crops
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Used:
    """Images that the export used, by their SHA-256."""

    digests: tuple[str, ...]


def images_of(bundle: Bundle, options: TuneOptions, steps: Steps) -> TuningImages:
    """Decode the images of a search. Images used for calibration are never among them.

    Raises:
        UsageError: an invalid number of images.
        ImageError: no usable image.
    """
    for flag, value in (("--images", options.images), ("--validation-images", options.validation_images)):
        if value is not None and value < 1:
            raise UsageError(f"invalid {flag} {value}: expected at least 1", hint=f"drop {flag}")
    recipe = recipe_here(
        bundle,
        SourceOptions(validation_data=options.validation_data),
        calibration_data=options.calibration_data,
    )
    used = _Used(bundle.reference().used)
    labels = None if options.labels is None else Path(options.labels)
    listed, notes = bundle.manifest.images["validation"], list[str]()
    own_data = options.validation_data is None and options.validation_images is None
    validation = crops_step(
        steps,
        image_set(recipe, recipe.validation.data, "validation", labels),
        recipe,
        count=options.validation_images or recipe.validation.images,
        role="validation",
        apart_from=[] if own_data else [used],
    )
    if validation.list_digest != listed.digest:
        notes.append(f"These are not the {listed.images} validation images of the export.")
    count = options.images or IMAGES
    choosable = image_set(recipe, recipe.calibration.data, "selection", None)
    try:
        selection = crops_step(
            steps,
            choosable,
            recipe,
            count=count,
            role="selection",
            apart_from=[validation, used],
        )
    except ImageError as error:
        notes.append(
            f"No image is left to choose by ({error.what}), so placements were chosen on validation images. "
            "Validate the result on others: cnnx validate --validation-data."
        )
        selection = validation
    if len(selection) < min(count, _FEW):
        notes.append(f"Only {len(selection)} images to choose by: small differences mean nothing.")
    return TuningImages(recipe, selection, validation, tuple(notes))


def original_logits(
    source: Source, images: TuningImages, options: TuneOptions, steps: Steps
) -> NDArray[np.float32]:
    """Logits to judge by, (N, classes), for the validation images, without PyTorch.

    They are those of the bundle's FP32 graph, which is first compared with the original on the self-test. If
    the bundle was judged by a reference, they are the reference's.

    Raises:
        BundleError: the FP32 graph gives other logits than the original, or the reference is another one.
        RecipeError: the reference is not here.
    """
    bundle, recipe = source.bundle, images.recipe
    if bundle.manifest.reference is not None:
        if options.reference is not None:
            path = str(Path(options.reference).absolute())
            recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, reference=path))
        reference = open_reference(recipe)
        assert reference is not None
        check_reference(bundle, reference)
        return judge_step(steps, reference, images.validation, recipe).logits
    kept = bundle.reference()
    error = relative_error(kept.original, graph_logits(source.graph.model, kept.crops, recipe.preprocessing))
    if not error <= EXPORT_TOLERANCE:
        raise BundleError(
            f"the FP32 graph in the bundle gives other logits here than the original did: max|a-b|/max|b| is "
            f"{error:.2g}, the limit is {EXPORT_TOLERANCE:g}",
            where=bundle.path / REFERENCE,
            hint="copy the bundle again from where it was made, or export it again",
        )
    return floor_step(steps, source.graph, images.validation, recipe).logits
