"""Checks of names, sizes, image counts and free space, made before any work or download."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

from cnnx import models
from cnnx.data import resampling
from cnnx.data.class_names import class_names
from cnnx.data.sets import BUILT_IN
from cnnx.errors import ImageError, MissingExtra, RecipeError
from cnnx.pipeline.preconditions.disk_space import refuse_full_disks
from cnnx.pipeline.preconditions.request import ImageCounts, Request
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.search.folds import refuse_empty_folds
from cnnx.pipeline.steps.images import image_set, refuse_too_few
from cnnx.pipeline.steps.original import Original, open_original, open_reference
from cnnx.recipe import Recipe
from cnnx.store.cache import cache_folder
from cnnx.store.files import check_folder
from cnnx.weights import find


def open_checked(
    request: Request, steps: Steps, *, trust_recipe: bool, check_torch: Callable[[], None] | None = None
) -> Original:
    """Check the request with `refuse_early`, then open the original, downloading its weights if needed.

    Raises:
        CnnxError: see `refuse_early` and `cnnx.weights.locate`.
    """
    ready = refuse_early(request, trust_recipe=trust_recipe, check_torch=check_torch)

    def work(progress: Progress) -> Original:
        return ready or open_original(
            request.recipe, request.weights, trust_recipe=trust_recipe, progress=progress
        )

    return steps.run("weights", work)


def refuse_early(
    request: Request, *, trust_recipe: bool, check_torch: Callable[[], None] | None = None
) -> Original | None:
    """Raise for a request that cannot succeed, in the order in which the steps would fail.

    Args:
        request: what is about to be done.
        trust_recipe: whether the recipe's own Python code may run.
        check_torch: raises if a PyTorch definition cannot be run; None: `refuse_without_torch`.

    Returns:
        the opened original if it is an ONNX file, which contains its weights; else None.

    Raises:
        RecipeError: the definition does not exist, the class names file is missing, it has the wrong number
            of names, or the reference does not fit.
        UsageError: weights given for an ONNX file, a batch that its graph does not take, or too few images
            for selection or for the folds.
        WeightsError: the checkpoint does not exist.
        ImageError: the image set does not exist, is empty, or its labels do not match.
        MissingExtra: a PyTorch definition, and PyTorch is not installed; or resampling as OpenCV does, and
            OpenCV is not installed.
        WriteFailed: the cache cannot be written, or there is too little free space.
    """
    recipe = request.recipe
    class_names(recipe)
    if reason := resampling.missing(recipe.preprocessing):
        raise reason
    original, batch = None, request.batch
    if recipe.is_onnx:
        original = open_original(
            recipe, request.weights, trust_recipe=trust_recipe, progress=lambda _done, _total: None
        )
        batch = original.batch(request.batch)
        checkpoint = original.weights.file
    else:
        _refuse_definition(recipe)
        checkpoint = find(recipe, request.weights)
    if request.out is not None:
        open_reference(recipe)
    counts = count_images(request)
    refuse_empty_folds(counts.calibration, request.folds, batch=batch[0])
    if not recipe.is_onnx:
        (check_torch or refuse_without_torch)()
    refuse_unwritable_cache()
    refuse_full_disks(request, counts, checkpoint)
    return original


def count_images(request: Request) -> ImageCounts:
    """Count the images of each role without decoding any.

    Raises:
        ImageError: an image set does not exist, is empty, its labels do not match, or no image is left for
            calibration.
        UsageError: too few images are left for selection.
    """
    recipe, validating = request.recipe, 0
    calibration, validation = recipe.calibration, recipe.validation
    if request.validates or not {calibration.data, validation.data} & set(BUILT_IN):
        available = len(image_set(recipe, validation.data, "validation", request.labels))
        validating = min(available, validation.images)
    if not request.calibrates:
        return ImageCounts(validating)
    left = len(image_set(recipe, calibration.data, "calibration", None))
    choosing = 0
    if calibration.data not in BUILT_IN:
        same = os.path.realpath(calibration.data) == os.path.realpath(validation.data)
        left -= validating if same else 0
        if request.selects:
            refuse_too_few(left, recipe)
            choosing = min(request.selects, max(1, left // 4))
            left -= choosing
        elif left < 1:
            raise ImageError(
                f"no image is left for calibration: all {validating} are used for validation",
                where=calibration.data,
                hint="use different images for calibration and validation, or lower --validation-images",
            )
    elif request.selects:
        choosing = request.selects
    return ImageCounts(validating, choosing, min(left, calibration.images))


def refuse_unwritable_cache() -> None:
    """Raise if the cache folder cannot be created or written.

    Raises:
        WriteFailed: it cannot.
    """
    check_folder(cache_folder())


def _refuse_definition(recipe: Recipe) -> None:
    """Raise if the definition does not exist. Its arguments are checked later, when it is imported."""
    if not recipe.runs_user_code:
        models.check_name(recipe.model.definition)
        return
    file = recipe.folder / recipe.model.definition.partition(":")[0]
    if not file.is_file():
        raise RecipeError(
            "the file of model.definition does not exist",
            where=file,
            hint="correct model.definition: FILE.py:NAME, relative to the recipe's folder",
        )


def refuse_without_torch() -> None:
    """Raise if PyTorch or what exports its models is missing; imports neither.

    Raises:
        MissingExtra: a package is not installed.
    """
    for package in ("torch", "onnxscript"):
        if not _importable(package):
            raise MissingExtra(package, "export", purpose="building the PyTorch model")


def _importable(package: str) -> bool:
    """Whether a package is installed. Does not import it, as that takes seconds."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
