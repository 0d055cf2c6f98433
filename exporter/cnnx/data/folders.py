"""Opens sets of image files: class folders, flat folders, and lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cnnx.data.images import SUFFIXES, ImageFile, ImageSet, spread
from cnnx.data.listing import WNID, Classes, Line, read_labels, read_list, refuse_bare_numbers
from cnnx.errors import ImageError

_LABEL_FILES = ("labels.csv", "labels.txt")
_SHOWN = 3


def open_folder(folder: Path, *, labels: Path | None, classes: Classes | None) -> ImageSet:
    """Open a folder of class folders, or a flat folder with or without a label file.

    Raises:
        ImageError: see `cnnx.data.sets.open_images`.
    """
    loose, below = _scan(folder)
    inside = [name for files in below.values() for name in files]
    if not loose and not inside:
        raise ImageError(
            "the folder contains no images",
            where=folder,
            hint=f"give a folder with files ending in {', '.join(sorted(SUFFIXES))}",
        )
    if loose and inside:
        classful = next(name for name, files in below.items() if files)
        raise ImageError(
            f"the folder mixes class folders ({classful}/, ...) with loose images ({loose[0]}, ...)",
            where=folder,
            hint="move the loose images into class folders, or give one of the class folders",
        )
    if loose and labels is None:
        labels = next((file for name in _LABEL_FILES if (file := folder / name).is_file()), None)
    if classes is not None and labels is not None:
        return _image_set(folder, _labelled(folder, loose or inside, labels, classes))
    if classes is not None and inside:
        return _by_class(folder, below, classes)
    return _image_set(folder, [ImageFile(name, folder / name) for name in loose or inside])


def _by_class(folder: Path, below: Mapping[str, Sequence[str]], classes: Classes) -> ImageSet:
    """Label images by the name of their class folder.

    Where the meaning of the names is ambiguous, the set has no labels and a note with the reason.
    """
    full = [name for name, files in below.items() if files]
    strangers = [name for name in full if name not in classes.ids]
    for name in strangers:
        if any(file.split("/")[1] in classes.ids for file in below[name] if file.count("/") > 1):
            raise ImageError(
                f"the class folders are one level deeper, in {name}/",
                where=folder,
                hint=f"give the folder that contains them: {folder / name}",
            )
    numbers: Mapping[str, int] = {}
    note = ""
    if len(strangers) == len(full):
        numbers, note = _numbered(list(below), classes)
    elif strangers:
        raise ImageError(
            f"{len(strangers)} of {len(full)} class folders are not named by a WordNet ID of this network, "
            f"although the others are: {_some(strangers)}",
            where=folder,
            hint="rename them to WordNet IDs, move them away, or label the images in a file (--labels)",
        )
    else:
        numbers = classes.ids
    items = [ImageFile(file, folder / file, numbers.get(name)) for name in full for file in below[name]]
    return _image_set(folder, items, class_names=tuple(numbers) or None, note=note)


def _numbered(names: list[str], classes: Classes) -> tuple[dict[str, int], str]:
    """Label class folders that are not named by WordNet IDs, by sorted position.

    Returns:
        The labels by name and "", or no labels and the reason.
    """
    if classes.count is not None and len(names) != classes.count:
        return {}, f"{len(names)} class folders for {classes.count} classes: labels unused"
    if classes.ids and all(WNID.fullmatch(name) for name in names):
        return {}, "class folders are named by WordNet IDs of other classes: labels unused"
    if classes.ids and not all(name.isdecimal() for name in names):
        return {}, "class folders are named neither by WordNet IDs nor by index: labels unused"
    if all(name.isdecimal() for name in names):
        # "10" sorts before "2". The logits of networks trained with torchvision's ImageFolder are in that
        # order. If the classes have WordNet IDs, "0" to "999" are indices instead, as in ImageNetV2.
        counted = sorted(names, key=int)
        indices = classes.ids and counted == [str(index) for index in range(len(names))]
        if counted != names and not indices:
            return {}, "class folder names sort differently as numbers than as text: labels unused"
        names = counted
    return {name: label for label, name in enumerate(names)}, ""


def open_list(file: Path, *, root: Path | None, labels: Path | None, classes: Classes | None) -> ImageSet:
    """Open the images listed in a text file, in its order.

    Raises:
        ImageError: see `cnnx.data.sets.open_images`.
    """
    folder = file.parent if root is None else root
    if file.suffix.lower() in SUFFIXES:
        raise ImageError(
            "the path is a single image, not a set", where=file, hint="give the folder that contains it"
        )
    lines = read_list(file, classes=classes)
    if not lines:
        raise ImageError("the list is empty", where=file, hint="write one file name per line")
    names = {_inside(folder, line, file): line for line in lines}
    absent = [name for name in names if not _is_file(folder / name)]
    if len(absent) == len(names):
        refuse_bare_numbers(lines, file)
    _refuse_absent(file, absent, folder)
    if len(names) < len(lines):
        twice = next(line for line in lines if names[_inside(folder, line, file)] is not line)
        raise ImageError(
            f"{twice.name} is listed twice",
            where=f"{file}, line {twice.number}",
            hint="remove one of the lines",
        )
    if classes is None or labels is None:
        items = [ImageFile(name, folder / name, line.label) for name, line in names.items()]
    elif any(line.label is not None for line in lines):
        raise ImageError(
            "labels are given both in the list and in a label file", where=file, hint="drop the label file"
        )
    else:
        items = _labelled(folder, list(names), labels, classes)
    return ImageSet(file.name, f"the user's list {file.name}", items)


def _image_set(
    folder: Path,
    items: Iterable[ImageFile],
    *,
    class_names: tuple[str, ...] | None = None,
    note: str = "",
) -> ImageSet:
    name = folder.resolve().name
    return ImageSet(name, f"the user's folder {name}", spread(items), class_names=class_names, note=note)


def _scan(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the images directly in the folder, and those at any depth below each subfolder, by name."""
    try:
        entries = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        below = {name: sorted(_below(folder, name)) for name in entries if (folder / name).is_dir()}
        return [name for name in entries if _is_image(folder / name)], below
    except OSError as error:
        raise ImageError(
            f"the folder cannot be read: {error.strerror}",
            where=error.filename,
            hint=f"check its permissions: ls -ld '{error.filename}'",
        ) from None


def _below(folder: Path, name: str) -> Iterator[str]:
    def stop(error: OSError) -> None:
        raise error

    for parent, inner, files in os.walk(folder / name, onerror=stop):
        inner[:] = [each for each in inner if not each.startswith(".")]
        for file in files:
            path = Path(parent, file)
            if not file.startswith(".") and _is_image(path):
                yield path.relative_to(folder).as_posix()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and _is_file(path)


def _is_file(path: Path) -> bool:
    """Return whether the path is a regular file: a pipe or socket would block, a long name raises OSError."""
    try:
        return path.is_file()
    except OSError:
        return False


def _labelled(folder: Path, names: Sequence[str], labels: Path, classes: Classes) -> list[ImageFile]:
    """Return the named images with the labels from a file, or without a label if it has none for them."""
    lines = read_labels(labels, classes=classes)
    by_name = {_inside(folder, line, labels): line.label for line in lines}
    _refuse_absent(labels, sorted(by_name.keys() - set(names)), folder)
    return [ImageFile(name, folder / name, by_name.get(name)) for name in names]


def _inside(folder: Path, line: Line, file: Path) -> str:
    """Return the name relative to the folder, and refuse one outside it; links inside are followed."""
    base = os.path.normpath(folder.absolute())
    path = Path(os.path.normpath(Path(base, line.name)))
    if not path.is_relative_to(base) and Path(line.name).is_absolute():
        # Below a symbolic link, the shell and the system report different working folders.
        base, path = os.path.realpath(base), Path(os.path.realpath(path.parent), path.name)
    if not path.is_relative_to(base):
        raise ImageError(
            f"{line.name} is outside the folder {folder}",
            where=f"{file}, line {line.number}",
            hint="list only files below that folder, or move the list to a folder above all its images",
        )
    return path.relative_to(base).as_posix()


def _refuse_absent(file: Path, absent: Sequence[str], folder: Path) -> None:
    if absent:
        raise ImageError(
            f"{file.name} names images that are not in the set: {_some(absent)}",
            where=file,
            hint=f"write 'name' or 'name label' on each line, with names relative to {folder}",
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
