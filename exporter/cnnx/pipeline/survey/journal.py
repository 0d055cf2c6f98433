"""Keeps the rows of a survey on disk, one file per cell, so that a stopped survey resumes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from cnnx.errors import InputRefused
from cnnx.pipeline.bench.measurement import Prediction
from cnnx.pipeline.plain import plain
from cnnx.pipeline.records.benchmark import PlainFootprint
from cnnx.record import Subject
from cnnx.schema import (
    Count,
    FileName,
    Percent,
    Positive,
    Quantity,
    Rate,
    from_plain,
    plain_of,
    read_json,
    with_hints,
)
from cnnx.stats import Interval
from cnnx.store.files import atomic_file

_ROWS, _DEVICES = "rows", "devices"
_DIED = "the process died in this cell twice, possibly out of memory"
_TRIES = 2

Row = dict[str, Any]


class _Head(TypedDict):
    model: FileName
    precision: Literal["fp32", "fp16", "int8", "unknown"]
    batch: Positive
    status: Literal["done", "failed", "running"]
    reason: str
    hint: str
    verdict: Literal["passed", "failed", "inconclusive", "not judged", "self-test failed"] | None
    follows_from: Mapping[str, Any]


class MeasuredAccuracy(TypedDict):
    """Top-1 accuracy on labelled images, with its 95 % interval."""

    top1: Rate
    low: Rate
    high: Rate
    images: Count
    image_set: str


class NetworkFacts(TypedDict, total=False):
    """Keys of a row that are about its network.

    `multiply_adds` is per image. `accuracy` is that of the exported graph or engine, null if the images have
    no labels. `published_top1` is that of the architecture's published weights, in percent, which may not be
    the weights that were used; null if none is known. `undecided` says why the verdict is no verdict, and
    `assumed_preprocessing` that nobody has stated the preprocessing, so that it may be wrong.
    """

    parameters: Count
    multiply_adds: Count
    accuracy: MeasuredAccuracy | None
    published_top1: Percent | None
    published_on: str
    undecided: str
    assumed_preprocessing: bool


class StoredRow(_Head, NetworkFacts, total=False):
    """A row of a survey as stored; figures are absent if the cell failed or was stopped.

    `on` is the name of the device in a fleet.
    """

    killed: Count
    subject: Subject
    cuda_graph: bool | None
    valid: bool
    findings: list[str]
    of: str
    images_per_second: Quantity
    p50_ns: Count | None
    p90_ns: Count | None
    p99_ns: Count | None
    mean_ns: Quantity
    coefficient_of_variation: Quantity | None
    percentile: Quantity
    percentile_ns: Count | None
    percentile_bound_ns: Count | None
    p50_interval: Interval | None
    mean_interval: Interval | None
    block: Positive | None
    memory: PlainFootprint
    predicted: Prediction
    advice: str
    energy: Literal["measured", "unsupported", "failed"]
    sensor: str | None
    gross_mj: float | None
    net_mj: float | None
    power_mw: float | None
    no_energy: str
    energy_doubts: list[str]
    on: str


_FIGURES = ("subject", "valid", "findings", "p50_ns", "p99_ns", "images_per_second", "memory")
_DAMAGED = "delete this file, and its cell will be measured again"
Cell = tuple[str, str, int]
"""Network, precision, batch."""


class Journal:
    """The rows of a survey's folder.

    Args:
        folder: folder of the survey.
        follows: (network, precision) -> what the figures depend on now, as plain data. Each row stores what
            they depended on when it was written.
        again: retry failed cells, and cells whose energy failed or had no sensor.
        energy: whether energy is requested.
    """

    def __init__(
        self, folder: Path, follows: Mapping[tuple[str, str], Row], *, again: bool, energy: bool
    ) -> None:
        self.folder, self._again, self._energy = folder, again, energy
        self._follows: dict[tuple[str, str], Row] = {key: plain(value) for key, value in follows.items()}
        self._done: set[Path] = set()
        self._killed = dict(self._marks())

    def blank(self, cell: Cell) -> Row:
        """A new row without figures."""
        name, precision, batch = cell
        return {
            "model": name,
            "precision": precision,
            "batch": batch,
            "status": "done",
            "reason": "",
            "hint": "",
            "verdict": None,
            "follows_from": self._follows[name, precision],
        }

    def changed(self, cell: Cell) -> tuple[str, ...]:
        """The dependencies of a cell's row that have changed since; empty if the cell has no row."""
        row = self._read(self._file(cell))
        if row is None:
            return ()
        before, now = row.get("follows_from", {}), self._follows[cell[:2]]
        return tuple(
            key
            for key, value in now.items()
            if before.get(key) != value and (key != "power" or "energy" in row)
        )

    def is_over(self, cell: Cell) -> bool:
        """Whether a cell is finished."""
        file = self._file(cell)
        row = self._read(file)
        if row is None or self.changed(cell):
            return False
        wants_energy = self._energy and row["status"] == "done"
        if wants_energy and "energy" not in row:
            return False  # measured without energy, or stopped before it
        failed = row["status"] == "failed" or (wants_energy and row["energy"] != "measured")
        retry = self._again or 0 < self._killed.get(file, 0) < _TRIES
        return not failed or not retry or file in self._done

    def was_killed(self, cell: Cell) -> bool:
        """Whether an earlier process was killed in this cell."""
        return self._file(cell) in self._killed

    def standing(self, cell: Cell) -> Row | None:
        """The row of a cell, if it has figures and they are current."""
        row = self._read(self._file(cell))
        return row if row and row["status"] == "done" and not self.changed(cell) else None

    def write(self, row: Row) -> None:
        """Write the final row of a cell."""
        file = self._file(cell_of(row))
        self._done.add(file)
        _put(file, _text(row))

    @contextlib.contextmanager
    def marked(self, rows: Iterable[Row]) -> Iterator[None]:
        """Write rows that remain if the process is killed within this context, and count how often it was.

        A cell in which the process was killed once is retried, as the kill may have had a different cause,
        such as memory used by other programs. After the second kill the cell has failed.
        On any other exit, including an interrupt, the previous file is restored, unless `write` has written
        the final row: an interrupted cell is not finished.
        """
        marks: dict[Path, tuple[str | None, str]] = {}
        try:
            for row in rows:
                file = self._file(cell_of(row))
                text = _text({**row, "killed": self._killed.get(file, 0) + 1})
                marks[file] = (_text_of(file), text)
                _put(file, text)
            yield
        finally:
            for file, (before, mark) in marks.items():
                if _text_of(file) != mark:
                    continue
                if before is None:
                    file.unlink()
                else:
                    _put(file, before)

    def rows(self, cells: Iterable[Cell]) -> tuple[Row, ...]:
        """The rows of these cells, in order, without cells that were not started."""
        found = (self._read(self._file(cell)) for cell in cells)
        return tuple(row for row in found if row is not None)

    def _file(self, cell: Cell) -> Path:
        return self.folder / _ROWS / _file_name(cell)

    def _read(self, file: Path) -> Row | None:
        row = _stored(file)
        if row is None:
            return None
        killed = row.pop("killed", 0)
        if row["status"] == "running":
            if killed < _TRIES:
                return None  # as if it had not been started
            row |= {
                "status": "failed",
                "reason": _DIED,
                "hint": "try a smaller batch or a single precision, or retry with --again",
            }
        return row

    def _marks(self) -> Iterator[tuple[Path, int]]:
        """The files in which earlier processes were killed, and how often."""
        for file in (self.folder / _ROWS).glob("*.json"):
            row = _stored(file) or {}
            now = self._follows.get((row.get("model", ""), row.get("precision", "")))
            if row.get("killed") and row["follows_from"] == now:
                yield file, row["killed"]


def write_row(row: Row, folder: Path) -> None:
    """Write the row of a cell into a survey's folder.

    Raises:
        WriteFailed: it cannot be written.
    """
    _put(folder / _ROWS / _file_name(cell_of(row)), _text(row))


def read_rows(folder: Path) -> tuple[Row, ...]:
    """All rows in a survey's folder, by file name; in that of a fleet's survey, those of all devices.

    Raises:
        InputRefused: a row is damaged, or does not match its file's name.
    """
    files = sorted(folder.glob(f"{_ROWS}/*.json")) or sorted(folder.glob(f"{_DEVICES}/*/{_ROWS}/*.json"))
    found = map(_stored, files)
    return tuple(row for row in found if row is not None)


def cell_of(row: Row) -> Cell:
    """The cell of a row."""
    return row["model"], row["precision"], row["batch"]


def _stored(file: Path) -> Row | None:
    """The row in a file; None if the file does not exist.

    Raises:
        InputRefused: the file is damaged, or its cell does not match its name.
    """
    text = _text_of(file)
    if text is None:
        return None
    row = row_of(read_json(text, where=file, error=InputRefused, hint=_DAMAGED), where=file)
    if file.name != _file_name(cell_of(row)):
        what = "model, precision and batch are {!r}, {!r} and {!r}".format(*cell_of(row))
        raise InputRefused(f"{what}, which do not match the file's name", where=file, hint=_DAMAGED)
    return row


def is_survey(folder: Path) -> bool:
    """Whether a folder is that of a survey, or of a fleet's survey."""
    return (folder / _ROWS).is_dir() or any(folder.glob(f"{_DEVICES}/*/{_ROWS}"))


def row_of(data: Any, *, where: Path) -> Row:
    """A row from plain data of the file `where`.

    Raises:
        InputRefused: a key is unknown or missing, or a value has another type.
    """
    row: Row = plain_of(
        from_plain(StoredRow, with_hints(data), where=where, error=InputRefused, hint=_DAMAGED)
    )
    if row["status"] == "done" and (missing := [key for key in _FIGURES if key not in row]):
        raise InputRefused(f"the key {missing[0]!r} is missing", where=where, hint=_DAMAGED)
    return row


def _file_name(cell: Cell) -> str:
    name, precision, batch = cell
    return f"{name}-{precision}-b{batch}.json"


def _text(row: Row) -> str:
    return json.dumps(plain(row), indent=1) + "\n"


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except UnicodeDecodeError as error:
        raise InputRefused(f"it is not UTF-8: {error}", where=file, hint=_DAMAGED) from None


def _put(file: Path, text: str) -> None:
    with atomic_file(file) as draft:
        draft.write_text(text, encoding="utf-8")
