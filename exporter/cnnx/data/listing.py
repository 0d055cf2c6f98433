"""Text files with a picture's name on each line, and perhaps the index of its class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import ImageError

_LABELLED = re.compile(r"(?P<name>.*[^\s,;])\s*[\s,;]\s*(?P<label>[+-]?\d{1,9})")
_HEADER = re.compile(r"\w+\s*[,;\t ]\s*(label|class|index|target)\w*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a list: counted from 1, with a label where it has one."""

    number: int
    name: str
    label: int | None


def read_list(file: Path, *, classes: int | None) -> list[Line]:
    """Names with or without labels: a line that ends in a whole number has one.

    Blank lines, lines that start with "#" and a header are passed over.

    Raises:
        ImageError: not readable as UTF-8, or a label outside 0..classes-1.
    """
    return [_checked(line, file, classes) for line in _lines(file)]


def read_labels(file: Path, *, classes: int | None) -> list[Line]:
    """As `read_list`, but every line must have a label and no picture may have two.

    Raises:
        ImageError: also for a line without a label, or a picture named twice.
    """
    lines = read_list(file, classes=classes)
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


def _lines(file: Path) -> Iterator[Line]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ImageError(f"the list cannot be read: {error.strerror}", where=file) from None
    except UnicodeDecodeError:
        raise ImageError("this is no UTF-8 text", where=file, mend="one file name a line") from None
    first = True
    for number, raw in enumerate(text.splitlines(), start=1):
        row = raw.strip()
        if row and not row.startswith("#"):
            if not (first and _HEADER.fullmatch(row)):
                match = _LABELLED.fullmatch(row)
                name, label = (match["name"], int(match["label"])) if match else (row, None)
                yield Line(number, name.strip("\"'"), label)
            first = False


def _checked(line: Line, file: Path, classes: int | None) -> Line:
    if "\0" in line.name:
        raise ImageError(
            "this is no list of file names", where=f"{file}, line {line.number}", mend="one file name a line"
        )
    if line.label is not None and (line.label < 0 or (classes is not None and line.label >= classes)):
        allowed = "0 and up" if classes is None else f"0 to {classes - 1}"
        raise ImageError(
            f"the label {line.label} of {line.name} is out of range",
            where=f"{file}, line {line.number}",
            mend=f"labels are class indices from {allowed}",
        )
    return line
