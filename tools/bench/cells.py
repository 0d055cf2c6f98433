"""Cells of a benchmark: one record each, so that a stopped run continues; and tables made of them."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnx.machine.environment import cpu_model, installed_version

TOOLS = ("cnnx", "onnx", "onnxruntime", "numpy")
Record = dict[str, Any]


def fill(folder: Path, cells: Mapping[str, Callable[[], Record]], *, again: bool, console: Console) -> None:
    """Run what has no record yet; with `again` all.

    Args:
        folder: where <cell>.json is written.
        cells: name -> what gives its record; the machine, the date and the versions are added to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: run for name, run in cells.items() if again or not (folder / f"{name}.json").is_file()}
    for number, (name, run) in enumerate(wanted.items(), start=1):
        record = {
            **run(),
            "machine": cpu_model(),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "versions": {tool: installed_version(tool) for tool in TOOLS},
        }
        draft = folder / f"{name}.part"
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draft.replace(folder / f"{name}.json")
        console.print(f"{number} of {len(wanted)}: {name}")


def options(doc: str | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """What every such tool is asked for on its command line."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--names", default="*", help="shell pattern of the networks to run")
    parser.add_argument("--again", action="store_true", help="run cells that have a record, too")
    parser.add_argument("--page-only", action="store_true", help="write the page from the records there are")
    return parser, parser.parse_args()


def read(folder: Path, names: Iterable[str]) -> dict[str, Record]:
    """The records there are, of these cells and in their order."""
    files = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(file.read_text("utf-8")) for name, file in files.items() if file.is_file()}


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, left: Iterable[int] = (0,)) -> str:
    """Markdown; columns whose place is in `left` are text, the others numbers."""
    columns, left = list(columns), set(left)
    rule = "".join("---|" if place in left else "---:|" for place in range(len(columns)))
    return "\n".join([f"| {' | '.join(columns)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)])


def where_measured(records: Iterable[Record]) -> str:
    """The machines, dates and versions of some records, for a page's last line."""
    records = list(records)
    machines = "; ".join(sorted({record["machine"] for record in records}))
    dates = " to ".join(sorted({min(r["date"] for r in records), max(r["date"] for r in records)}))
    versions = sorted({f"{tool} {version}" for r in records for tool, version in r["versions"].items()})
    return f"{machines}; {dates}; {', '.join(versions)}."
