"""Names and WordNet ids of classes, read from the file that a recipe or a user gives."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from cnnx.errors import RecipeError
from cnnx.recipe import Recipe


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
    return tuple(row["name"] for row in _rows(path, classes))


def read_wnids(path: Path, classes: int) -> tuple[str, ...] | None:
    """The WordNet id of each class, in the order of the logits; None where the file has none.

    Args:
        path: as for `read_labels`; the ids stand in the column "wnid" of a .csv.
        classes: length of the logits.

    Raises:
        RecipeError: see `read_labels`; also for an id that is malformed, or stands twice.
    """
    rows = _rows(path, classes)
    if "wnid" not in rows[0]:
        return None
    ids: dict[str, int] = {}
    for index, row in enumerate(rows):
        wnid = row["wnid"].strip()
        if not re.fullmatch(r"n\d{8}", wnid, re.ASCII):
            raise RecipeError(
                f"class {index} has no WordNet id, but {wnid!r}", where=path, mend="n and eight digits"
            )
        if ids.setdefault(wnid, index) != index:
            raise RecipeError(
                f"classes {ids[wnid]} and {index} have the same WordNet id {wnid}",
                where=path,
                mend="mend the column wnid",
            )
    return tuple(ids)


def _rows(path: Path, classes: int) -> list[dict[str, str]]:
    """One row a class, each with a name."""
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
    lines = text.rstrip().splitlines()
    rows = _csv_rows(lines, path) if path.suffix.lower() == ".csv" else [{"name": line} for line in lines]
    if len(rows) != classes:
        raise RecipeError(
            f"{len(rows)} labels for {classes} classes", where=path, mend="give one name for each class"
        )
    for index, row in enumerate(rows):
        row["name"] = row["name"].strip()
        if not row["name"]:
            raise RecipeError(f"class {index} has an empty name", where=path, mend="give it one")
    return rows


def _csv_rows(lines: list[str], path: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(lines, restval="")
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
    return rows


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the recipe's classes, where it has any.

    Raises:
        RecipeError: see `read_labels`.
    """
    file = recipe.labels_file
    return read_labels(file, recipe.model.classes) if file else ()
