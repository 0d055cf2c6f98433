"""Text files with a picture's name on each line, and perhaps its class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import ImageError

WNID = re.compile(r"n\d{8}")
"""A WordNet id as ImageNet writes it: "n" for noun and the synset's offset."""

_LABELLED = re.compile(rf"(?P<name>.*[^\s,;])\s*[\s,;]\s*(?P<label>[+-]?\d{{1,9}}|{WNID.pattern})")
_HEADER = re.compile(r"\w+\s*[,;\t ]\s*(label|class|index|target|wnid|synset)\w*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Classes:
    """What a label may be: an index from 0, below `count` where that is known, or a WordNet id in `ids`."""

    count: int | None
    ids: Mapping[str, int]

    def index(self, label: str, *, name: str, where: str) -> int:
        """The class index behind a label as it is written.

        Raises:
            ImageError: no class of this network; the message names the picture and the place.
        """
        if WNID.fullmatch(label):
            if label in self.ids:
                return self.ids[label]
            has = "are others" if self.ids else "are not known"
            raise ImageError(
                f"{name} is labelled {label}; the WordNet ids of this network's classes {has}",
                where=where,
                mend="write class indices, or the ids in the column wnid of the recipe's labels file",
            )
        index = int(label)
        if index < 0 or (self.count is not None and index >= self.count):
            allowed = "0 and up" if self.count is None else f"0 to {self.count - 1}"
            raise ImageError(
                f"the label {index} of {name} is out of range",
                where=where,
                mend=f"labels are class indices from {allowed}, in the order of the logits"
                + ("" if index != self.count else "; ILSVRC's devkit counts from 1, in another order"),
            )
        return index


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a list: counted from 1, with a class index where it has a label that was read."""

    number: int
    name: str
    label: int | None


def read_list(file: Path, *, classes: Classes | None) -> list[Line]:
    """Names with or without labels: a line that ends in a whole number or a WordNet id has one.

    Blank lines, lines that start with "#" and a header are passed over.

    Args:
        file: UTF-8 text.
        classes: what a label may be; None: labels are not wanted, and passed over.

    Raises:
        ImageError: not readable as UTF-8, or a label that is no class.
    """
    return [_line(number, row, file, classes) for number, row in _rows(file)]


def read_labels(file: Path, *, classes: Classes) -> list[Line]:
    """As `read_list`, but every line must have a label and no picture may have two.

    Raises:
        ImageError: also for a line without a label, or a picture named twice.
    """
    lines = read_list(file, classes=classes)
    refuse_bare_numbers(lines, file)
    seen: dict[str, int] = {}
    for line in lines:
        where = f"{file}, line {line.number}"
        if line.label is None:
            raise ImageError(
                f"no label index after {line.name!r}", where=where, mend="write 'name 3' or 'name,3'"
            )
        if line.name in seen:
            raise ImageError(
                f"{line.name} is labelled twice", where=where, mend=f"see line {seen[line.name]}"
            )
        seen[line.name] = line.number
    return lines


def refuse_bare_numbers(lines: Sequence[Line], file: Path) -> None:
    """Refuse the ground truth of ILSVRC's devkit, or what looks like it: numbers, and no names.

    Read as class indices they would be wrong without a trace: the devkit counts its classes from 1 in an
    order of its own, where published checkpoints sort them by WordNet id.
    """
    if lines and all(line.label is None and line.name.isdecimal() for line in lines):
        raise ImageError(
            "each line is a number without a picture's name, as in ILSVRC2012_validation_ground_truth.txt, "
            "whose numbers follow the devkit's own order of classes, not the order of the logits",
            where=file,
            mend="write lines such as 'ILSVRC2012_val_00000001.JPEG n01751748': the devkit's meta.mat gives "
            "the WordNet id of each number",
        )


def _rows(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ImageError(
            f"the list cannot be read: {error.strerror}", where=file, mend="give a text file, one name a line"
        ) from None
    except UnicodeDecodeError:
        raise ImageError("this is no UTF-8 text", where=file, mend="one file name a line") from None
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
        raise ImageError("this is no list of file names", where=where, mend="one file name a line")
    match = _LABELLED.fullmatch(row)
    name = (match["name"] if match else row).strip("\"'")
    label = classes.index(match["label"], name=name, where=where) if match and classes else None
    return Line(number, name, label)
