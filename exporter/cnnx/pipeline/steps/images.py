"""The image sets of a run: calibration, selection and validation images, no image in two of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cnnx.data.class_names import class_names, read_wnids
from cnnx.data.crops import Crops, fingerprint, write_crops
from cnnx.data.images import ImageSet, Split
from cnnx.data.resampling import opencv_version
from cnnx.data.sets import BUILT_IN, open_images
from cnnx.errors import UsageError
from cnnx.machine.environment import installed_version
from cnnx.pipeline.progress import Progress, Steps
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

# With fewer calibration or selection images than this, the user is warned.
_FEW = 64


class Listed(Protocol):
    """A set of images known by their SHA-256."""

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's source."""
        ...


def crops_step(
    steps: Steps,
    images: ImageSet,
    recipe: Recipe,
    *,
    count: int,
    role: str,
    apart_from: Sequence[Listed] = (),
) -> Crops:
    """Decode the images of one role, once.

    Args:
        steps: runs the step.
        images: the image set.
        recipe: the network's recipe, for its preprocessing and input shape.
        count: maximum number of images.
        role: "calibration", "selection", "validation" or "held-out".
        apart_from: sets whose images are excluded.
    """
    exclude = frozenset(digest for crops in apart_from for digest in crops.digests)
    found = fingerprint(images, count=count, exclude=exclude)
    inputs = {
        "images": found.digest,
        "count": count,
        "preprocessing": recipe.preprocessing.as_key(),
        "shape": recipe.input.shape,
        "code": own_code(__name__, "cnnx.data"),
        "pillow": installed_version("pillow"),
        **opencv_version(recipe.preprocessing),
    }

    def fill(folder: Path, progress: Progress) -> None:
        write_crops(
            images,
            recipe.preprocessing,
            shape=recipe.input.shape,
            count=count,
            folder=folder,
            found=found.images,
            exclude=exclude,
            progress=progress,
        )

    return Crops.open(steps.make(f"{role} images", "crops", inputs, fill).folder)


@dataclass(frozen=True, slots=True)
class ImagesByRole:
    """Images by role; None where a role is not needed."""

    validation: Crops | None
    calibration: Crops | None
    selection: Crops | None


def images_by_role(
    steps: Steps,
    recipe: Recipe,
    *,
    validates: bool,
    calibrates: bool,
    selects: int,
    labels: Path | None = None,
) -> ImagesByRole:
    """Decode the images of a run.

    Args:
        steps: runs the steps.
        recipe: the network's recipe.
        validates: whether validation images are needed. If not, they are still decoded where calibration
            images could be among them, so that calibration uses the same images as an export.
        calibrates: whether calibration images are needed.
        selects: maximum number of selection images; 0: none.
        labels: label file of a flat validation folder.

    Raises:
        UsageError: too few images for selection.
        ImageError: no usable image, or too many unusable ones.
    """
    validation = None
    if validates or not {recipe.calibration.data, recipe.validation.data} & set(BUILT_IN):
        validation = crops_step(
            steps,
            image_set(recipe, recipe.validation.data, "validation", labels),
            recipe,
            count=recipe.validation.images,
            role="validation",
        )
    selection = _selection(steps, recipe, validation, selects) if selects else None
    calibration = None
    if calibrates:
        calibration = crops_step(
            steps,
            image_set(recipe, recipe.calibration.data, "calibration", None),
            recipe,
            count=recipe.calibration.images,
            role="calibration",
            apart_from=[crops for crops in (validation, selection) if crops],
        )
    return ImagesByRole(validation, calibration, selection)


def held_out(steps: Steps, recipe: Recipe, used: ImagesByRole, count: int) -> Crops:
    """Images from the calibration set that are used neither for calibration nor for validation.

    Raises:
        ImageError: none are left.
    """
    return crops_step(
        steps,
        image_set(recipe, recipe.calibration.data, "selection", None),
        recipe,
        count=count,
        role="held-out",
        apart_from=[crops for crops in (used.validation, used.calibration) if crops],
    )


def remarks(calibration: Crops | None, selection: Crops | None, validation: Crops | None) -> tuple[str, ...]:
    """Notes for the user about the images that were used."""
    notes = []
    if selection and len(selection) < _FEW:
        notes.append(f"Only {len(selection)} selection images were available; 128 or more are better.")
    for crops in (calibration, selection, validation):
        if crops is not None and crops.note:
            notes.append(f"{crops.name}: {crops.note}")
        if crops is not None and crops.skipped:
            first = ", ".join(f"{each.id} ({each.reason})" for each in crops.skipped[:3])
            notes.append(f"{len(crops.skipped)} images of {crops.name} were skipped: {first}")
    if calibration and calibration.excluded:
        others = "validation" if selection is None else "validation or selection"
        notes.append(
            f"{calibration.excluded} calibration images were excluded, as they are also {others} images."
        )
    return tuple(notes)


def few_ranges(calibration: Crops) -> tuple[str, ...]:
    """A note if INT8's ranges were taken from few images; else empty."""
    if len(calibration) >= _FEW:
        return ()
    return (f"Ranges were taken from only {len(calibration)} images; 512 is usual.",)


def _selection(steps: Steps, recipe: Recipe, validation: Crops | None, count: int) -> Crops:
    """The selection images: at most a quarter of those available."""
    images = image_set(recipe, recipe.calibration.data, "selection", None)
    # If the same folder is used for validation, its validation images are not available.
    data = recipe.calibration.data
    same = data not in BUILT_IN and os.path.realpath(data) == os.path.realpath(recipe.validation.data)
    available = len(images) - (len(validation) if validation and same else 0)
    refuse_too_few(available, recipe)
    return crops_step(
        steps,
        images,
        recipe,
        count=min(count, max(1, available // 4)),
        role="selection",
        apart_from=[validation] if validation else [],
    )


def refuse_too_few(available: int, recipe: Recipe) -> None:
    """Raise if fewer than two images are available: one for selection and one for calibration.

    Raises:
        UsageError: too few images.
    """
    if available < 2:
        raise UsageError(
            f"number of images left for calibration and selection: {available}, at least 2 are needed",
            where=recipe.calibration.data,
            hint="give more calibration images, or drop --method auto, --repair and --folds",
        )


def image_set(recipe: Recipe, data: str, split: Split, labels: Path | None) -> ImageSet:
    """Open an image set for this network, decoding nothing; see `cnnx.data.sets.open_images`."""
    preprocessing = recipe.preprocessing
    return open_images(
        data,
        labels=labels,
        size=preprocessing.side(recipe.input.shape),
        color=preprocessing.drawn_in,
        split=split,
        classes=recipe.model.classes,
        class_ids=_class_ids(recipe, Path(data)),
    )


def _class_ids(recipe: Recipe, folder: Path) -> tuple[str, ...] | None:
    """What names the class folders: WordNet IDs, or the class names if every folder is named after a class.

    Sorted positions would be wrong labels wherever the logits are in another order.
    """
    file = recipe.labels_file
    if file is None or (ids := read_wnids(file, recipe.model.classes)):
        return ids if file else None
    names = class_names(recipe)
    try:
        folders = {each.name for each in folder.iterdir() if each.is_dir() and each.name[0] != "."}
    except OSError:  # a built-in set, a list, or a folder whose opening gives the reason
        return None
    return names if folders and folders <= set(names) and len(set(names)) == len(names) else None
