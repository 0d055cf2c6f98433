"""Flipped images of validations, with class names and thumbnails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cnnx.agreement import Flip, Validation, validation_from_dict
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.images import ImageItem, ImageSet
from cnnx.data.sets import BUILT_IN
from cnnx.data.thumbnail import thumbnail
from cnnx.errors import CnnxError
from cnnx.pipeline.steps.images import image_set
from cnnx.record import Record
from cnnx.report.document import FlippedImage, Flips
from cnnx.report.table import Remark

MOST = 200
"""Flips of a validation that a report shows: the clearest."""


_WHERE = "--images names a folder of that name"


def flips_of(
    record: Record, bundle: Bundle | None, *, images: str | Path | None, thumbnails: bool
) -> tuple[Flips | None, tuple[Remark, ...]]:
    """The flipped images of a validation; None if there are none.

    Args:
        record: a validation or judgement.
        bundle: the bundle, for class names and the images of its recipe; None if it is not at hand.
        images: where the images are; None: where the recipe says.
        thumbnails: whether to add thumbnails.

    Returns:
        The flips, and why thumbnails are missing.
    """
    validation = validation_from_dict(record.result)
    if not validation.flips:
        return None, ()
    margins = _margins(validation)
    places = sorted(range(len(validation.flips)), key=lambda place: -(margins[place] or 0.0))[:MOST]
    flips = [validation.flips[place] for place in places]
    found, remarks = _items(validation, flips, bundle, images) if thumbnails else ({}, ())
    labels = bundle.labels if bundle else ()
    shown = tuple(
        _flip(flip, labels, margins[place], found.get(flip.image))
        for place, flip in zip(places, flips, strict=True)
    )
    return Flips(f"{record.subject}, {record.date[:19]}", len(validation.flips), shown), remarks


def _margins(validation: Validation) -> Sequence[float | None]:
    """How clear the original was about each flipped image, in their order."""
    found = validation.outcomes
    if found is None or found.margins is None:
        return [None] * len(validation.flips)
    clear = [m for a, b, m in zip(found.original, found.engine, found.margins, strict=True) if a != b]
    return clear if len(clear) == len(validation.flips) else [None] * len(validation.flips)


def _flip(flip: Flip, labels: Sequence[str], margin: float | None, item: ImageItem | None) -> FlippedImage:
    def name(index: int) -> str:
        return labels[index] if 0 <= index < len(labels) else f"class {index}"

    return FlippedImage(
        flip.image,
        "" if flip.label is None else name(flip.label),
        tuple(map(name, flip.original)),
        tuple(map(name, flip.engine)),
        margin,
        "" if item is None else thumbnail(item),
    )


def _items(
    validation: Validation, flips: Sequence[Flip], bundle: Bundle | None, images: str | Path | None
) -> tuple[Mapping[str, ImageItem], tuple[Remark, ...]]:
    """Name -> image, for those that are found."""
    try:
        opened = _images_of(validation, bundle, images)
    except CnnxError as error:
        return {}, (Remark(f"{error.what}; {_WHERE}", "thumbnails left out"),)
    if opened is None:
        text = f"the images of {validation.image_set} are not where the recipe says; {_WHERE}"
        return {}, (Remark(text, "thumbnails left out"),)
    wanted = {flip.image for flip in flips}
    found = {item.id: item for item in opened if item.id in wanted}
    if missing := len(wanted - found.keys()):
        text = f"{missing} of {len(wanted)} images are not in {opened.name}"
        return found, (Remark(text, "thumbnails left out"),)
    return found, ()


def _images_of(validation: Validation, bundle: Bundle | None, images: str | Path | None) -> ImageSet | None:
    """The image set with the validation's name: that of `images`, of cnnx or of the recipe."""
    if bundle is None:
        return None
    recipe, named = recipe_of(bundle.manifest), validation.image_set
    given = [str(images)] if images is not None and Path(images).name == named else []
    for data in (*given, named if named in BUILT_IN else recipe.validation.data):
        opened = image_set(recipe, data, "validation", None)
        if opened.name == named:
            return opened
    return None
