"""A survey's rows on disk, a file a cell: what is over, what has changed since, what was being measured."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnx.files import atomic_file
from cnnx.pipeline.results import plain

_ROWS = "rows"
_DIED = "the process died in this cell twice, for want of memory perhaps"
_TRIES = 2

Row = dict[str, Any]
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
            "mend": "",
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
        name, precision, batch = cell
        return self.folder / _ROWS / f"{name}-{precision}-b{batch}.json"

    def _read(self, file: Path) -> Row | None:
        text = _text_of(file)
        if text is None:
            return None
        row: Row = json.loads(text)
        killed = row.pop("killed", 0)
        if row["status"] == "running":
            if killed < _TRIES:
                return None  # as if it had not been begun
            row |= {
                "status": "failed",
                "reason": _DIED,
                "mend": "try a smaller batch, or one precision alone; --again tries once more",
            }
        return row

    def _marks(self) -> Iterator[tuple[Path, int]]:
        """Marks that processes before this one left, and how often they were killed there."""
        for file in (self.folder / _ROWS).glob("*.json"):
            row: Row = json.loads(_text_of(file) or "{}")
            now = self._follows.get((row.get("model", ""), row.get("precision", "")))
            if row.get("killed") and row["follows_from"] == now:
                yield file, row["killed"]


def cell_of(row: Row) -> Cell:
    """Whose row it is."""
    return row["model"], row["precision"], row["batch"]


def _text(row: Row) -> str:
    return json.dumps(plain(row), indent=1) + "\n"


def _text_of(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _put(file: Path, text: str) -> None:
    with atomic_file(file) as draft:
        draft.write_text(text, encoding="utf-8")
