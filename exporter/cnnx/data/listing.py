"""Reads text files with one image name per line, with or without a label."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import ImageError
from cnnx.limits import LIST_BYTES
from cnnx.store.reading import read_text

WNID = re.compile(r"n[0-9]{8}")
"""A WordNet ID as in ImageNet: "n" for noun and the synset's offset."""

_LABELLED = re.compile(rf"(?P<name>.*[^\s,;])\s*[\s,;]\s*(?P<label>[+-]?[0-9]{{1,9}}|{WNID.pattern})")
_HEADER = re.compile(r"\w+\s*[,;\t ]\s*(label|class|index|target|wnid|synset)\w*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Classes:
    """Valid labels: indices from 0, below `count` if that is known, and the WordNet IDs in `ids`."""

    count: int | None
    ids: Mapping[str, int]

    def index(self, label: str, *, name: str, where: str) -> int:
        """Return the class index of a label.

        Args:
            label: an index or a WordNet ID, as written in the file.
            name: image name, for the message.
            where: file and line, for the message.

        Raises:
            ImageError: the label is not a class of this network.
        """
        if WNID.fullmatch(label):
            if label in self.ids:
                return self.ids[label]
            reason = (
                "not a WordNet ID of this network's classes"
                if self.ids
                else "the WordNet IDs of this network's classes are not known"
            )
            raise ImageError(
                f"unknown label {label} of {name}: {reason}",
                where=where,
                hint="write class indices, or add the IDs as column wnid to the recipe's labels file",
            )
        index = int(label)
        if index < 0 or (self.count is not None and index >= self.count):
            allowed = "0 and up" if self.count is None else f"0 to {self.count - 1}"
            raise ImageError(
                f"the label {index} of {name} is out of range",
                where=where,
                hint=f"write class indices from {allowed}, in the order of the logits"
                + ("" if index != self.count else "; ILSVRC's devkit counts from 1, in a different order"),
            )
        return index


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a list: its number from 1, the image name, and the class index if it has a label."""

    number: int
    name: str
    label: int | None


def read_list(file: Path, *, classes: Classes | None) -> list[Line]:
    """Read names with or without labels; a line that ends in an integer or a WordNet ID has a label.

    Blank lines, lines that start with "#" and a header are skipped.

    Args:
        file: UTF-8 text.
        classes: the valid labels; None to ignore labels.

    Raises:
        ImageError: the file is not readable as UTF-8, or a label is not a class of the network.
    """
    return [_line(number, row, file, classes) for number, row in _rows(file)]


def read_labels(file: Path, *, classes: Classes) -> list[Line]:
    """Read names with labels, as `read_list` does; every line needs a label and every name is unique.

    Raises:
        ImageError: see `read_list`; also if a line has no label, or an image is named twice.
    """
    lines = read_list(file, classes=classes)
    refuse_bare_numbers(lines, file)
    seen: dict[str, int] = {}
    for line in lines:
        where = f"{file}, line {line.number}"
        if line.label is None:
            raise ImageError(
                f"no label after {line.name!r}",
                where=where,
                hint=f"write '{line.name} 3' or '{line.name},3', with the class index or WordNet ID",
            )
        if line.name in seen:
            raise ImageError(
                f"{line.name} is labelled twice",
                where=where,
                hint=f"remove this line or line {seen[line.name]}",
            )
        seen[line.name] = line.number
    return lines


def refuse_bare_numbers(lines: Sequence[Line], file: Path) -> None:
    """Refuse a file of numbers without names, such as the ground truth of ILSVRC's devkit.

    Read as class indices, these numbers would be silently wrong: the devkit counts classes from 1 in its own
    order, whereas published checkpoints sort them by WordNet ID.
    """
    if lines and all(line.label is None and line.name.isdecimal() for line in lines):
        raise ImageError(
            "each line is a number without an image name, as in ILSVRC2012_validation_ground_truth.txt; "
            "its numbers follow the devkit's order of classes, not the order of the logits",
            where=file,
            hint="write lines such as 'ILSVRC2012_val_00000001.JPEG n01751748'; the devkit's meta.mat has "
            "the WordNet ID of each number",
        )


def _rows(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = read_text(file, most=LIST_BYTES, encoding="utf-8-sig")
    except OSError as error:
        raise ImageError(
            f"the list cannot be read: {error.strerror}",
            where=file,
            hint="give a readable text file with one file name per line",
        ) from None
    except UnicodeDecodeError:
        raise ImageError(
            "the list is not UTF-8 text",
            where=file,
            hint="give a UTF-8 text file with one file name per line",
        ) from None
    first = True
    for number, raw in enumerate(text.split("\n"), start=1):
        row = raw.strip()
        if row and not row.startswith("#"):
            if not (first and _HEADER.fullmatch(row)):
                yield number, row
            first = False


def _line(number: int, row: str, file: Path, classes: Classes | None) -> Line:
    where = f"{file}, line {number}"
    if "\0" in row:
        raise ImageError(
            "the file is not a list of file names",
            where=where,
            hint="give a text file with one file name per line",
        )
    match = _LABELLED.fullmatch(row)
    name = (match["name"] if match else row).strip("\"'")
    label = classes.index(match["label"], name=name, where=where) if match and classes else None
    return Line(number, name, label)
