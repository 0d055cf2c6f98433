"""Names of classes, read from the file that a recipe or a user gives."""

from __future__ import annotations

import csv
from pathlib import Path

from cnnx.errors import RecipeError


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """One name a class, in the order of the logits.

    Args:
        path: a .csv with a column "name" (and, where it has one, a column "index" that counts from 0);
            any other suffix: text with one name a line.
        classes: length of the logits.

    Raises:
        RecipeError: the file is absent, not UTF-8, has no such column, counts wrongly, has an empty name,
            or does not hold `classes` names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(
            "the labels file is absent", where=path, mend="mend model.labels in the recipe"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"the labels file cannot be read: {error}", where=path, mend="save it as UTF-8"
        ) from None
    lines = text.splitlines()
    names = _csv_names(lines, path) if path.suffix.lower() == ".csv" else [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if len(names) != classes:
        raise RecipeError(
            f"{len(names)} labels for {classes} classes", where=path, mend="give one name for each class"
        )
    if "" in names:
        raise RecipeError(f"class {names.index('')} has an empty name", where=path, mend="give it one")
    return tuple(names)


def _csv_names(lines: list[str], path: Path) -> list[str]:
    reader = csv.DictReader(lines)
    if "name" not in (reader.fieldnames or ()):
        raise RecipeError("the labels file has no column 'name'", where=path, mend="head it with: index,name")
    rows = list(reader)
    for position, row in enumerate(rows):
        if row.get("index", str(position)) != str(position):
            raise RecipeError(
                f"row {position} has index {row['index']}",
                where=path,
                mend="order the rows as the logits are",
            )
    return [(row["name"] or "").strip() for row in rows]
