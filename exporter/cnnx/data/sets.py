"""The door to every set of pictures: a built-in name, a folder, or a list of files."""

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
    """Find the pictures that a recipe or a command line names. None is decoded yet.

    Class folders label their pictures. Where `class_ids` are given: by those, however few there are, or by
    the indices "0" to "999". Where none are given, and there are as many folders as classes: by their sorted
    position, as torchvision's ImageFolder does, unless they are numbers that sort otherwise than they count.
    In every other case the pictures are taken without labels, and `ImageSet.note` says so.

    Args:
        spec: a name in `BUILT_IN` (which wins over a folder of that name: write ./digits for the
            folder); a folder of class folders; a flat folder; or a text file that names one file a
            line, with or without a label.
        size: side in pixels of pictures that are made rather than read.
        color: "rgb" or "gray", likewise.
        split: built-in sets keep "validation" apart from all others, shapes100 all four from each other;
            folders and lists have one set. Calibration and selection read no labels of theirs: none can be
            wrong.
        labels: a file of "name label" lines (comma, semicolon or white space between); default:
            labels.csv or labels.txt in a flat folder, where there is one. A label is a class index,
            or a WordNet id in `class_ids`.
        root: where the names of a list start; default: the list's own folder.
        classes: length of the logits, to refuse labels out of range.
        class_ids: the WordNet id of each class, in the order of the logits.

    Returns:
        The set: folders in the order of their names' SHA-256 (a limit takes a spread-out sample, and
        an added picture moves no other), lists in their own order.

    Raises:
        ImageError: nothing there, no pictures in it, class folders mixed with loose pictures, some class
            folders named by an id and some not, a listed file that is absent or outside the folder,
            labels that are malformed or no class.
        UsageError: labels or a root for a set that takes none.
    """
    if spec in BUILT_IN:
        _refuse(spec, labels=labels, root=root)
        built_in: ImageSet = importlib.import_module(BUILT_IN[spec]).open_set(split, size=size, color=color)
        names = built_in.class_names
        if names is None or classes in (None, len(names)):
            return built_in
        note = f"its {len(names)} classes are not this network's {classes}: labels unused"
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
        f"there is no folder, list or built-in set {spec!r}",
        where=Path(spec).absolute(),
        mend=f"{hint}give a folder of pictures, a text file that lists them, or one of: {known}",
    )


def _refuse(spec: str, **given: Path | None) -> None:
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"the set {spec!r} takes no {option}", where=value, mend=f"leave out the {option}"
            )
