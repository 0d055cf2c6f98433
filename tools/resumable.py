"""Cells of a long run, a record each: one that was stopped continues, and a damaged record is made again."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Group = tuple[Sequence[str], Callable[[Sequence[str]], Iterator[tuple[str, Record]]]]
"""Cells that share something; and what runs those of them it is given, and yields each with its record."""


@dataclass(frozen=True, slots=True)
class Records:
    """<cell>.json in a folder; a cell's name may lead into folders below it."""

    folder: Path

    def place(self, cell: str) -> Path:
        return self.folder / f"{cell}.json"

    def get(self, cell: str) -> Record | None:
        """None: there is no record, or no whole one."""
        try:
            found = json.loads(self.place(cell).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def among(self, cells: Iterable[str]) -> dict[str, Record]:
        """The records there are, of these cells and in their order."""
        return {cell: found for cell in cells if (found := self.get(cell)) is not None}

    def keep(self, cell: str, record: Record) -> None:
        """Written beside, then renamed: a kill leaves the old one or the new one."""
        self.place(cell).parent.mkdir(parents=True, exist_ok=True)
        draft = self.place(cell).with_suffix(".part")
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.place(cell))


def one_by_one(cells: Mapping[str, Sequence[Any]], run: Callable[..., Record]) -> list[Group]:
    """Cells that share nothing; each is run with the arguments that it stands for."""
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
    """Run what has no record yet; with `again` all.

    Args:
        done: whether a record will do.
        in_words: what is printed of a new record.
        jobs: groups at a time.
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
    """What every such tool is asked for on its command line."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--names", default="*", help="shell pattern of the networks to run")
    parser.add_argument("--again", action="store_true", help="run cells that have a record, too")
    parser.add_argument("--page-only", action="store_true", help="write the page from the records there are")
    return parser
