"""Sets of picture files: class folders, flat folders, and lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cnnx.data.images import SUFFIXES, ImageFile, ImageSet, spread
from cnnx.data.listing import Line, read_labels, read_list
from cnnx.errors import ImageError

_LABEL_FILES = ("labels.csv", "labels.txt")
_SHOWN = 3


def open_folder(folder: Path, *, labels: Path | None, classes: int | None) -> ImageSet:
    """A folder of class folders, or a flat one with or without a labels file.

    Raises:
        ImageError: see `cnnx.data.sets.open_images`.
    """
    loose, below = _scan(folder)
    if not loose and not any(below.values()):
        raise ImageError(
            "the folder holds no pictures", where=folder, mend=f"known endings: {', '.join(sorted(SUFFIXES))}"
        )
    if not any(below.values()):
        found = (folder / name for name in _LABEL_FILES)
        lines = labels or next((file for file in found if file.is_file()), None)
        return _image_set(folder, _labelled(folder, loose, lines, classes))
    if loose:
        classful = next(name for name, files in below.items() if files)
        raise ImageError(
            f"the folder mixes class folders ({classful}/, ...) with loose pictures ({loose[0]}, ...)",
            where=folder,
            mend="move the loose pictures into class folders, or name one of the folders",
        )
    inside = [name for files in below.values() for name in files]
    if labels is not None:
        return _image_set(folder, _labelled(folder, inside, labels, classes))
    if classes is not None and len(below) != classes:
        note = f"; its {len(below)} class folders do not number {classes} classes: labels unused"
        return _image_set(folder, (ImageFile(name, folder / name) for name in inside), note=note)
    files = [
        ImageFile(name, folder / name, label) for label, names in enumerate(below.values()) for name in names
    ]
    return _image_set(folder, files, class_names=tuple(below))


def open_list(file: Path, *, root: Path | None, labels: Path | None, classes: int | None) -> ImageSet:
    """The pictures that a text file names, in its order.

    Raises:
        ImageError: see `cnnx.data.sets.open_images`.
    """
    folder = file.parent if root is None else root
    if file.suffix.lower() in SUFFIXES:
        raise ImageError("this is one picture, not a set", where=file, mend="give the folder it lies in")
    lines = read_list(file, classes=classes)
    if not lines:
        raise ImageError("the list names no pictures", where=file, mend="one file name a line")
    if labels is not None and any(line.label is not None for line in lines):
        raise ImageError(
            "labels are given twice, in the list and beside it", where=file, mend="leave out the labels file"
        )
    names = {_inside(folder, line, file): line for line in lines}
    if len(names) < len(lines):
        twice = next(line for line in lines if names[_inside(folder, line, file)] is not line)
        raise ImageError(
            f"{twice.name} is listed twice", where=f"{file}, line {twice.number}", mend="drop one"
        )
    _refuse_absent(file, [name for name in names if not _is_file(folder / name)], folder)
    if labels is not None:
        items = _labelled(folder, list(names), labels, classes)
    else:
        items = [ImageFile(name, folder / name, line.label) for name, line in names.items()]
    return ImageSet(file.name, f"the user's list {file.name}", items)


def _image_set(
    folder: Path,
    items: Iterable[ImageFile],
    *,
    class_names: tuple[str, ...] | None = None,
    note: str = "",
) -> ImageSet:
    name = folder.resolve().name
    return ImageSet(name, f"the user's folder {name}{note}", spread(items), class_names=class_names)


def _scan(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Pictures in the folder itself, and by name those anywhere below each of its subfolders."""
    try:
        entries = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        below = {name: sorted(_below(folder, name)) for name in entries if (folder / name).is_dir()}
        return [name for name in entries if _is_picture(folder / name)], below
    except OSError as error:
        raise ImageError(f"the folder cannot be read: {error.strerror}", where=error.filename) from None


def _below(folder: Path, name: str) -> Iterator[str]:
    def stop(error: OSError) -> None:
        raise error

    for place, inner, files in os.walk(folder / name, onerror=stop):
        inner[:] = [each for each in inner if not each.startswith(".")]
        for file in files:
            path = Path(place, file)
            if not file.startswith(".") and _is_picture(path):
                yield path.relative_to(folder).as_posix()


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and _is_file(path)


def _is_file(path: Path) -> bool:
    """No pipe or socket, which would block when read; nor a name too long to exist."""
    try:
        return path.is_file()
    except OSError:
        return False


def _labelled(
    folder: Path, names: Sequence[str], labels: Path | None, classes: int | None
) -> list[ImageFile]:
    """The named pictures with labels from a file; a picture that it does not name has none."""
    if labels is None:
        return [ImageFile(name, folder / name) for name in names]
    lines = read_labels(labels, classes=classes)
    by_name = {_inside(folder, line, labels): line.label for line in lines}
    _refuse_absent(labels, sorted(by_name.keys() - set(names)), folder)
    return [ImageFile(name, folder / name, by_name.get(name)) for name in names]


def _inside(folder: Path, line: Line, file: Path) -> str:
    """The name relative to the folder, which it must not leave (links inside are the owner's own affair)."""
    base = os.path.normpath(folder.absolute())
    path = Path(os.path.normpath(Path(base, line.name)))
    if not path.is_relative_to(base):
        raise ImageError(
            f"{line.name} lies outside the folder {folder}",
            where=f"{file}, line {line.number}",
            mend="list names below the folder, or give another folder as root",
        )
    return path.relative_to(base).as_posix()


def _refuse_absent(file: Path, absent: Sequence[str], folder: Path) -> None:
    if absent:
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        raise ImageError(
            f"{file.name} names pictures that are not in the set: {', '.join(absent[:_SHOWN])}{more}",
            where=file,
            mend=f"names are relative to {folder}; lines read 'name' or 'name label-index'",
        )
