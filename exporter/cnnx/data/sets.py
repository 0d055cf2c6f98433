"""Opens image sets: a built-in set by name, a folder, or a list of files."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path

from cnnx.data import folders
from cnnx.data.images import ImageSet, Split, unlabelled
from cnnx.data.listing import Classes
from cnnx.errors import ImageError, UsageError

BUILT_IN = {
    "deadleaves": "cnnx.data.builtin.deadleaves",
    "digits": "cnnx.data.builtin.digits",
    "shapes100": "cnnx.data.builtin.shapes100",
}
"""name -> module with `open_set(split, *, size, color) -> ImageSet`."""


def open_images(
    spec: str,
    *,
    size: int,
    color: str,
    split: Split,
    labels: Path | None = None,
    root: Path | None = None,
    classes: int | None = None,
    class_ids: Sequence[str] | None = None,
) -> ImageSet:
    """Open the image set named by a recipe or a command line, without decoding any image.

    Class folders give labels in two cases:

    * With `class_ids`, by those IDs, even if only some are present, or by the indices "0" to "999".
    * Without `class_ids`, if there is one folder per class: by sorted position, as in torchvision's
      ImageFolder. The names must not be numbers that sort differently as numbers than as text.

    In all other cases the images have no labels, and `ImageSet.note` has the reason.

    Args:
        spec: a name in `BUILT_IN` (it takes precedence over a folder of that name: write ./digits for the
            folder); a folder of class folders; a flat folder; or a text file with one file name per line,
            with or without a label.
        size: side of generated images, in pixels.
        color: "rgb" or "gray", for generated images.
        split: part of a built-in set. "validation" is disjoint from the other splits; in shapes100 all four
            are disjoint. Folders and lists have only one part. Labels of folders and lists are not read for
            calibration and selection, so they cannot be wrong.
        labels: file of "name label" lines, separated by a comma, a semicolon or white space. A label is a
            class index or a WordNet ID in `class_ids`. Default: labels.csv or labels.txt in a flat folder,
            if present.
        root: folder that the names in a list are relative to. Default: the list's folder.
        classes: length of the logits, to refuse labels out of range.
        class_ids: WordNet ID of each class, in the order of the logits.

    Returns:
        The set. Folders are sorted by the SHA-256 of the file names, so a limit takes a sample of the whole
        and an added image does not move the others. Lists keep their order.

    Raises:
        ImageError: the path does not exist or contains no images; class folders are mixed with loose
            images; only some class folders are named by an ID; a listed file is missing or outside the
            folder; or a label is malformed or not a class.
        UsageError: `labels` or `root` was given for a set that does not take it.
    """
    if spec in BUILT_IN:
        _refuse(spec, labels=labels, root=root)
        built_in: ImageSet = importlib.import_module(BUILT_IN[spec]).open_set(split, size=size, color=color)
        names = built_in.class_names
        if names is None or classes in (None, len(names)):
            return built_in
        note = f"the set has {len(names)} classes, the network {classes}: labels unused"
        return dataclasses.replace(built_in, items=unlabelled(built_in.items), class_names=None, note=note)
    wanted = None
    if split in ("calibration", "selection"):
        _refuse(spec, labels=labels)
    else:
        wanted = Classes(classes, {each: index for index, each in enumerate(class_ids or ())})
    with contextlib.suppress(OSError):  # a name too long to exist
        path = Path(spec)
        if spec and path.is_dir():
            _refuse(spec, root=root)
            return folders.open_folder(path, labels=labels, classes=wanted)
        if path.is_file():
            return folders.open_list(path, root=root, labels=labels, classes=wanted)
    near = difflib.get_close_matches(spec, BUILT_IN, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(sorted(BUILT_IN))
    raise ImageError(
        f"no folder, list or built-in set {spec!r}",
        where=Path(spec).absolute(),
        hint=f"{hint}give a folder of images, a text file that lists them, or one of: {known}",
    )


def _refuse(spec: str, **given: Path | None) -> None:
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"the set {spec!r} does not take {option}", where=value, hint=f"leave out {option}"
            )
