"""The picture sets of a run: those that calibrate, those that choose, those that judge; no picture in two."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cnnx.data.class_names import read_wnids
from cnnx.data.crops import Crops, fingerprint, write_crops
from cnnx.data.images import ImageSet, Split
from cnnx.data.sets import BUILT_IN, open_images
from cnnx.errors import UsageError
from cnnx.machine.environment import installed_version
from cnnx.pipeline.progress import Progress, Steps
from cnnx.recipe import Recipe
from cnnx.store.own_code import own_code

# Calibration pictures, or pictures that choose, below which the user is told that they are few.
_FEW = 64


class Listed(Protocol):
    """Images known by their SHA-256."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Of each image's source."""
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
        "code": own_code(__name__, "cnnx.data"),
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


@dataclass(frozen=True, slots=True)
class PictureSets:
    """Pictures by what they are for; None where nothing needs them."""

    validation: Crops | None
    calibration: Crops | None
    selection: Crops | None


def picture_sets(
    steps: Steps,
    recipe: Recipe,
    *,
    validates: bool,
    calibrates: bool,
    selects: int,
    labels: Path | None = None,
) -> PictureSets:
    """Decode the pictures of a run.

    Args:
        validates: whether validation pictures are needed. Where nobody judges, they are decoded all the same
            if a calibration picture might be among them, so that the others are those of an export.
        calibrates: whether calibration pictures are needed.
        selects: how many pictures are to choose, at most; 0: none.
        labels: for a flat validation folder, the file that gives each picture's class.

    Raises:
        UsageError: too few pictures to choose by.
        ImageError: no usable picture, or too many that are not.
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
    return PictureSets(validation, calibration, selection)


def held_out(steps: Steps, recipe: Recipe, pictures: PictureSets, count: int) -> Crops:
    """Pictures that neither calibrate nor validate, of the calibration set's kind.

    Raises:
        ImageError: none is left.
    """
    return crops_step(
        steps,
        image_set(recipe, recipe.calibration.data, "selection", None),
        recipe,
        count=count,
        role="held-out",
        apart_from=[crops for crops in (pictures.validation, pictures.calibration) if crops],
    )


def remarks(calibration: Crops | None, selection: Crops | None, validation: Crops | None) -> tuple[str, ...]:
    """What the user should know of the pictures that were used."""
    notes = []
    if selection and len(selection) < _FEW:
        notes.append(f"{len(selection)} pictures chose; 128 or more are better.")
    for crops in (calibration, selection, validation):
        if crops is not None and crops.note:
            notes.append(f"{crops.name}: {crops.note}")
        if crops is not None and crops.skipped:
            first = ", ".join(f"{each.id} ({each.reason})" for each in crops.skipped[:3])
            notes.append(f"{len(crops.skipped)} pictures of {crops.name} were skipped: {first}")
    if calibration and calibration.excluded:
        others = "validation pictures" if selection is None else "validation or selection pictures"
        notes.append(f"{calibration.excluded} calibration pictures are also {others}: left out.")
    return tuple(notes)


def few_ranges(calibration: Crops) -> tuple[str, ...]:
    """The remark that INT8's ranges rest on few pictures."""
    if len(calibration) >= _FEW:
        return ()
    return (f"Ranges were taken from {len(calibration)} pictures only; 512 are usual.",)


def _selection(steps: Steps, recipe: Recipe, validation: Crops | None, count: int) -> Crops:
    """Pictures that choose; of a set without such pictures of its own at most a quarter."""
    images = image_set(recipe, recipe.calibration.data, "selection", None)
    # A folder that also validates: those pictures are spoken for.
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
    """Refuse to choose by images where fewer than two are left to choose by and to calibrate with.

    Raises:
        UsageError: they are.
    """
    if available < 2:
        raise UsageError(
            f"{available} pictures are left to calibrate with, none of them to choose by",
            where=recipe.calibration.data,
            hint="give more calibration pictures, or leave out --method auto, --repair and --folds",
        )


def image_set(recipe: Recipe, data: str, split: Split, labels: Path | None) -> ImageSet:
    """A set as this network sees it, opened and not decoded; see `cnnx.data.sets.open_images`."""
    preprocessing, file = recipe.preprocessing, recipe.labels_file
    return open_images(
        data,
        labels=labels,
        size=preprocessing.resize,
        color=preprocessing.color,
        split=split,
        classes=recipe.model.classes,
        class_ids=read_wnids(file, recipe.model.classes) if file else None,
    )
