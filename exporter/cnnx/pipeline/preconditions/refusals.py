"""Everything that names, sizes and free space alone can refuse, before any work or download."""

from __future__ import annotations

import importlib.util
import os

from cnnx import models
from cnnx.data.class_names import class_names
from cnnx.data.sets import BUILT_IN
from cnnx.errors import ImageError, MissingExtra, RecipeError
from cnnx.pipeline.preconditions.disk_space import refuse_full_disks
from cnnx.pipeline.preconditions.request import ImageCounts, Request
from cnnx.pipeline.progress import Progress, Steps
from cnnx.pipeline.search.folds import refuse_empty_folds
from cnnx.pipeline.steps.images import image_set, refuse_too_few
from cnnx.pipeline.steps.original import Original, open_original
from cnnx.recipe import Recipe
from cnnx.store.cache import cache_folder
from cnnx.store.files import check_folder
from cnnx.weights import find


def open_checked(request: Request, steps: Steps, *, trust_recipe: bool) -> Original:
    """The original, its weights downloaded where they must be, once `refuse_early` found nothing.

    Raises:
        CnnxError: see `refuse_early` and `cnnx.weights.locate`.
    """
    ready = refuse_early(request, trust_recipe=trust_recipe)

    def work(progress: Progress) -> Original:
        return ready or open_original(
            request.recipe, request.weights, trust_recipe=trust_recipe, progress=progress
        )

    return steps.run("weights", work)


def refuse_early(request: Request, *, trust_recipe: bool) -> Original | None:
    """Refuse what cannot end well, in the order in which the steps would find out.

    Returns:
        the original where it lies in one file with its weights, as an ONNX graph does.

    Raises:
        RecipeError: there is no such definition, or its class names are not there or not as many as classes.
        UsageError: weights for an ONNX file, another batch than it has, or too few images to choose by or to
            fill the folds.
        GraphError: the graph of an ONNX file is quantized already, and is to be quantized.
        WeightsError: there is no such checkpoint.
        ImageError: there is no such image set, it is empty, or its labels do not match.
        MissingExtra: the definition is PyTorch's, and that is absent.
        WriteFailed: the cache cannot be written, or free space does not suffice.
    """
    recipe = request.recipe
    class_names(recipe)
    original, batch = None, request.batch
    if recipe.is_onnx:
        original = open_original(
            recipe, request.weights, trust_recipe=trust_recipe, progress=lambda _done, _total: None
        )
        batch = original.batch(request.batch)
        checkpoint = original.weights.file
        if request.precision in (None, "int8"):
            _refuse_quantized(recipe)
    else:
        _refuse_definition(recipe)
        checkpoint = find(recipe, request.weights)
    counts = count_images(request)
    refuse_empty_folds(counts.calibration, request.folds, batch=batch[0])
    if not recipe.is_onnx:
        _refuse_without_torch()
    refuse_unwritable_cache()
    refuse_full_disks(request, counts, checkpoint)
    return original


def count_images(request: Request) -> ImageCounts:
    """Open the image sets, decoding nothing.

    Raises:
        ImageError: a set is not there, it is empty, its labels do not match, or nothing is left to calibrate
            with.
        UsageError: too few images are left to choose by.
    """
    recipe, judging = request.recipe, 0
    calibration, validation = recipe.calibration, recipe.validation
    if request.validates or not {calibration.data, validation.data} & set(BUILT_IN):
        available = len(image_set(recipe, validation.data, "validation", request.labels))
        judging = min(available, validation.images)
    if not request.calibrates:
        return ImageCounts(judging)
    left = len(image_set(recipe, calibration.data, "calibration", None))
    choosing = 0
    if calibration.data not in BUILT_IN:
        same = os.path.realpath(calibration.data) == os.path.realpath(validation.data)
        left -= judging if same else 0
        if request.selects:
            refuse_too_few(left, recipe)
            choosing = min(request.selects, max(1, left // 4))
            left -= choosing
        elif left < 1:
            raise ImageError(
                f"no image is left to calibrate with: another set holds all {judging}",
                where=calibration.data,
                hint="give different images for calibration and validation, or a lower --validation-images",
            )
    elif request.selects:
        choosing = request.selects
    return ImageCounts(judging, choosing, min(left, calibration.images))


def refuse_unwritable_cache() -> None:
    """Refuse to work where no step could be kept.

    Raises:
        WriteFailed: the cache's folder cannot be written, or not made.
    """
    check_folder(cache_folder())


def _refuse_quantized(recipe: Recipe) -> None:
    from cnnx.graph.load import load_model
    from cnnx.graph.passes.qdq import refuse_quantized

    refuse_quantized(load_model(recipe.folder / recipe.model.definition))


def _refuse_definition(recipe: Recipe) -> None:
    """A definition that is not there. What it takes is known only once it is imported."""
    if not recipe.runs_user_code:
        models.check_name(recipe.model.definition)
        return
    file = recipe.folder / recipe.model.definition.partition(":")[0]
    if not file.is_file():
        raise RecipeError("there is no such definition", where=file, hint="correct model.definition")


def _refuse_without_torch() -> None:
    for package in ("torch", "onnxscript"):
        if not _importable(package):
            raise MissingExtra(package, "export", purpose="building the PyTorch model")


def _importable(package: str) -> bool:
    """Whether a package would be found; it is not imported, which takes seconds."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
