"""Runs many cells with one record each. A stopped run resumes, and damaged records are made again."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Group = tuple[Sequence[str], Callable[[Sequence[str]], Iterator[tuple[str, Record]]]]
"""Cells that share work, and a function that runs some of them and yields each with its record."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records as <cell>.json in a folder; a cell's name may contain subfolders."""

    folder: Path

    def place(self, cell: str) -> Path:
        return self.folder / f"{cell}.json"

    def get(self, cell: str) -> Record | None:
        """The record of a cell; None if it is absent or damaged."""
        try:
            found = json.loads(self.place(cell).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def among(self, cells: Iterable[str]) -> dict[str, Record]:
        """The existing records of these cells, in their order."""
        return {cell: found for cell in cells if (found := self.get(cell)) is not None}

    def keep(self, cell: str, record: Record) -> None:
        """Write a record atomically: to a draft, which is then renamed."""
        self.place(cell).parent.mkdir(parents=True, exist_ok=True)
        draft = self.place(cell).with_suffix(".part")
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.place(cell))


@contextlib.contextmanager
def keep_together(records: Records, file: Path, cells: Iterable[str]) -> Iterator[None]:
    """Take records that are missing from a file, and in the end write all records of these cells to it."""
    if file.is_file():
        for cell, record in json.loads(file.read_text(encoding="utf-8")).items():
            if records.get(cell) is None:
                records.keep(cell, record)
    try:
        yield
    finally:
        file.parent.mkdir(exist_ok=True)
        text = json.dumps(records.among(sorted(cells)), indent=1)
        file.write_text(text + "\n", encoding="utf-8")


def one_by_one(cells: Mapping[str, Sequence[Any]], run: Callable[..., Record]) -> list[Group]:
    """Groups of independent cells; each cell runs with its own arguments."""
    return [(list(cells), lambda wanted: ((cell, run(*cells[cell])) for cell in wanted))]


def fill(
    records: Records,
    groups: Iterable[Group],
    *,
    again: bool,
    done: Callable[[Record], bool] = bool,
    in_words: Callable[[Record], str] = lambda _: "",
    jobs: int = 1,
) -> None:
    """Run the cells that have no record; with `again`, all cells.

    Args:
        done: whether a record counts as complete.
        in_words: summary to print for a new record.
        jobs: number of groups to run at a time.
    """

    def is_wanted(cell: str) -> bool:
        return again or (found := records.get(cell)) is None or not done(found)

    def work(group: Group) -> None:
        for cell, record in group[1](group[0]):
            records.keep(cell, record)
            print(f"{next(number)} of {total}: {cell} {in_words(record)}".rstrip(), flush=True)

    wanted = [(todo, run) for cells, run in groups if (todo := list(filter(is_wanted, cells)))]
    number, total = itertools.count(1), sum(len(todo) for todo, _ in wanted)
    with ThreadPoolExecutor(jobs) as pool:
        for _ in (map if jobs == 1 else pool.map)(work, wanted):
            pass


def asked_for(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that all these tools share."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--names", default="*", help="shell pattern of the networks to run")
    parser.add_argument("--again", action="store_true", help="also run cells that have a record")
    parser.add_argument("--page-only", action="store_true", help="only write the page, from existing records")
    return parser
