"""A survey's rows on disk, a file a cell: what is over, what has changed since, what was being measured."""

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
from cnnx.schema import Count, FileName, Positive, Quantity, from_plain, plain_of, read_json, with_hints
from cnnx.stats import Interval
from cnnx.store.files import atomic_file

_ROWS = "rows"
_DIED = "the process died in this cell twice, for want of memory perhaps"
_TRIES = 2

Row = dict[str, Any]


class _Head(TypedDict):
    model: FileName
    precision: Literal["fp32", "fp16", "int8", "unknown"]
    batch: Positive
    status: Literal["done", "failed", "running"]
    reason: str
    hint: str
    verdict: Literal["passed", "failed", "inconclusive", "not judged"] | None
    follows_from: Mapping[str, Any]


class StoredRow(_Head, total=False):
    """A survey's row as its file has it; figures are absent where the cell failed or was stopped before."""

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
    no_energy: str
    energy_doubts: list[str]


_FIGURES = ("subject", "valid", "findings", "p50_ns", "p99_ns", "images_per_second", "memory")
_DAMAGED = "delete this file: its cell is measured again"
Cell = tuple[str, str, int]
"""Network, precision, batch."""


class Journal:
    """Rows under a folder.

    Args:
        folder: the survey's.
        follows: of each network and precision, what figures follow from now, as plain data. A row has it as
            it was when the row was made.
        again: failed cells are open, and those whose energy failed or had no sensor.
        energy: it is asked for.
    """

    def __init__(
        self, folder: Path, follows: Mapping[tuple[str, str], Row], *, again: bool, energy: bool
    ) -> None:
        self.folder, self._again, self._energy = folder, again, energy
        self._follows: dict[tuple[str, str], Row] = {key: plain(value) for key, value in follows.items()}
        self._done: set[Path] = set()
        self._killed = dict(self._marks())

    def blank(self, cell: Cell) -> Row:
        """A row to fill."""
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
        """What a cell's row follows from and is otherwise now; empty where there is no row."""
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
        """Whether a cell needs nothing more."""
        file = self._file(cell)
        row = self._read(file)
        if row is None or self.changed(cell):
            return False
        asked = self._energy and row["status"] == "done"
        if asked and "energy" not in row:
            return False  # it was surveyed without, or stopped before
        failed = row["status"] == "failed" or (asked and row["energy"] != "measured")
        once_more = self._again or 0 < self._killed.get(file, 0) < _TRIES
        return not failed or not once_more or file in self._done

    def was_killed(self, cell: Cell) -> bool:
        """Whether a process before this one was killed in it."""
        return self._file(cell) in self._killed

    def standing(self, cell: Cell) -> Row | None:
        """Its figures, where there are any and they follow from what holds now."""
        row = self._read(self._file(cell))
        return row if row and row["status"] == "done" and not self.changed(cell) else None

    def write(self, row: Row) -> None:
        """Write a row that says how its cell ended."""
        file = self._file(cell_of(row))
        self._done.add(file)
        _put(file, _text(row))

    @contextlib.contextmanager
    def marked(self, rows: Iterable[Row]) -> Iterator[None]:
        """Rows that stay should the process be killed meanwhile; each counts how often it was.

        A cell in which a process was killed once is open: who killed it may have meant another, as a kernel
        that runs out of memory does. One that was killed twice is over.
        Whatever else ends it, a stop by hand too, what was there before comes back, unless `write` has
        said how a cell ended: what was stopped is not over.
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
        """Of these cells, in order; those that were not begun have none."""
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
                return None  # as if it had not been begun
            row |= {
                "status": "failed",
                "reason": _DIED,
                "hint": "try a smaller batch, or one precision alone; --again tries once more",
            }
        return row

    def _marks(self) -> Iterator[tuple[Path, int]]:
        """Marks that processes before this one left, and how often they were killed there."""
        for file in (self.folder / _ROWS).glob("*.json"):
            row = _stored(file) or {}
            now = self._follows.get((row.get("model", ""), row.get("precision", "")))
            if row.get("killed") and row["follows_from"] == now:
                yield file, row["killed"]


def cell_of(row: Row) -> Cell:
    """Whose row it is."""
    return row["model"], row["precision"], row["batch"]


def _stored(file: Path) -> Row | None:
    """The row in a file; None where there is no file.

    Raises:
        InputRefused: it is damaged, or of another cell than its file's name says.
    """
    text = _text_of(file)
    if text is None:
        return None
    data = read_json(text, where=file, error=InputRefused, hint=_DAMAGED)
    row: Row = plain_of(
        from_plain(StoredRow, with_hints(data), where=file, error=InputRefused, hint=_DAMAGED)
    )
    if file.name != _file_name(cell_of(row)):
        what = "model, precision and batch are {!r}, {!r} and {!r}".format(*cell_of(row))
        raise InputRefused(f"{what}, and the file's name says otherwise", where=file, hint=_DAMAGED)
    if row["status"] == "done" and (missing := [key for key in _FIGURES if key not in row]):
        raise InputRefused(f"the key {missing[0]!r} is missing", where=file, hint=_DAMAGED)
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
