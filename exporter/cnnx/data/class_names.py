"""Reads class names and WordNet IDs from a labels file."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from cnnx.errors import RecipeError
from cnnx.limits import LIST_BYTES
from cnnx.recipe import Recipe
from cnnx.store.reading import read_text


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Return the name of each class, in the order of the logits.

    Args:
        path: a .csv file with a column "name" and optionally a column "index" that counts from 0. With any
            other suffix, a text file with one name per line.
        classes: length of the logits.

    Raises:
        RecipeError: the file is missing or not UTF-8, has no column "name", has a wrong index or an empty
            name, or does not contain exactly `classes` names.
    """
    return tuple(row["name"] for row in _rows(path, classes))


def read_wnids(path: Path, classes: int) -> tuple[str, ...] | None:
    """Return the WordNet ID of each class, in the order of the logits, or None if the file has none.

    Args:
        path: as for `read_labels`. IDs are read from the column "wnid" of a .csv file.
        classes: length of the logits.

    Raises:
        RecipeError: see `read_labels`; also if an ID is malformed or appears twice.
    """
    rows = _rows(path, classes)
    if "wnid" not in rows[0]:
        return None
    ids: dict[str, int] = {}
    for index, row in enumerate(rows):
        wnid = row["wnid"].strip()
        if not re.fullmatch(r"n\d{8}", wnid, re.ASCII):
            raise RecipeError(
                f"invalid WordNet ID {wnid!r} for class {index}",
                where=path,
                hint="write n and eight digits, such as n01440764",
            )
        if ids.setdefault(wnid, index) != index:
            raise RecipeError(
                f"classes {ids[wnid]} and {index} have the same WordNet ID {wnid}",
                where=path,
                hint="give each class its own ID in the column wnid",
            )
    return tuple(ids)


def _rows(path: Path, classes: int) -> list[dict[str, str]]:
    """Return one row per class, each with a name."""
    try:
        text = read_text(path, most=LIST_BYTES, encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(
            "the labels file does not exist",
            where=path,
            hint="correct --class-names, or model.labels in the recipe",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason, hint = (
            (error.strerror, "give a readable text file with one name per line")
            if isinstance(error, OSError)
            else (error, "save it as UTF-8")
        )
        raise RecipeError(f"the labels file cannot be read: {reason}", where=path, hint=hint) from None
    lines = text.rstrip().splitlines()
    rows = _csv_rows(lines, path) if path.suffix.lower() == ".csv" else [{"name": line} for line in lines]
    if len(rows) != classes:
        raise RecipeError(
            f"the labels file has {len(rows)} names for {classes} classes",
            where=path,
            hint="write one name for each class, in the order of the logits",
        )
    for index, row in enumerate(rows):
        row["name"] = row["name"].strip()
        if not row["name"]:
            raise RecipeError(
                f"the name of class {index} is empty", where=path, hint="write a name for every class"
            )
    return rows


def _csv_rows(lines: list[str], path: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(lines, restval="")
    if "name" not in (reader.fieldnames or ()):
        raise RecipeError(
            "the labels file has no column 'name'", where=path, hint="start the file with: index,name"
        )
    rows = list(reader)
    for position, row in enumerate(rows):
        if row.get("index", str(position)) != str(position):
            raise RecipeError(
                f"row {position} has index {row['index']}",
                where=path,
                hint="number the rows from 0, in the order of the logits",
            )
    return rows


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the recipe's classes, or an empty tuple if it has no labels file.

    Raises:
        RecipeError: see `read_labels`.
    """
    file = recipe.labels_file
    return read_labels(file, recipe.model.classes) if file else ()
