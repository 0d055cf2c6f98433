"""Text files with a line for each class or image."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from random import Random
from typing import Any

from tools import ROOT
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.doors.recipes import text_of
from tools.check.fuzz.mutators import octets, text

_IMAGES = ("a.png", "b/c.jpg", "d e.png", "f,g.png")


class ClassNamesDoor(Door):
    """Class names, one a line or in a table."""

    name, reads = "class names", "class names (.txt, .csv)"

    def prepare(self) -> None:
        import torch  # noqa: F401

        import cnnx.pipeline.export.export  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        names = [f"class {number}" for number in range(9)] + ["crane, bird"]
        rows = "\n".join(f'{index},n0{index:07},"{name}"' for index, name in enumerate(names))
        table = f"index,wnid,name\n{rows}\n"
        return {"text": {"n.txt": "\n".join(names).encode() + b"\n"}, "table": {"n.csv": table.encode()}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        name = next(iter(files))
        damage = octets.damage if dice.random() < 0.3 else _of_text
        changed, how = damage(dice, text_of(files, name).encode())
        return {name: changed}, how

    def read(self, folder: Path) -> Any:
        from cnnx.data.class_names import read_labels, read_wnids

        file = next(folder.iterdir())
        return read_labels(file, 10), read_wnids(file, 10)

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        file = next(folder.iterdir())
        lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
        if file.suffix == ".csv":
            lines = [row.get("name", "") for row in csv.DictReader(lines, restval="")]
        return "other names, as the file states" if list(after[0]) == [line.strip() for line in lines] else ""

    def command(self, folder: Path) -> list[str]:
        file = str(next(folder.iterdir()))
        return ["export", "lenet5", "--class-names", file, "--validation-data", "/absent", "--out", "out"]


class ListDoor(Door):
    """A list of images, with labels."""

    name, reads = "image list", "a list of images with labels"

    def prepare(self) -> None:
        import cnnx.data.sets
        import cnnx.pipeline.classify.classify  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        pixels = _pixels()
        images = dict.fromkeys(_IMAGES, pixels)
        rows = [f"{name} {label}" for label, name in enumerate(_IMAGES)]
        lists = {
            "labels": "\n".join(rows),
            "table": "filename,label\n" + "\n".join(row.replace(" ", ",", 1) for row in rows[:2]),
            "ids": "# WordNet\n"
            + "\n".join(f"{name};n0000000{label}" for label, name in enumerate(_IMAGES[:2])),
            "names": "\n".join(_IMAGES),
        }
        return {name: {**images, "list.txt": f"{rows}\n".encode()} for name, rows in lists.items()}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        damage = octets.damage if dice.random() < 0.3 else _of_text
        changed, how = damage(dice, text_of(files, "list.txt").encode())
        return {**files, "list.txt": changed}, how

    def read(self, folder: Path) -> Any:
        from cnnx.data.sets import open_images

        ids = [f"n{number:08}" for number in range(10)]
        found = open_images(
            str(folder / "list.txt"), size=8, color="rgb", split="validation", classes=10, class_ids=ids
        )
        return [(item.id, item.label) for item in found]

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """Each image and label stands in one line of the file, in this order."""
        lines = iter((folder / "list.txt").read_text(encoding="utf-8-sig").splitlines())
        for name, label in after:
            stated = rf"[\"']*(\./|[^/]+/\.\./)*{re.escape(name)}[\"']*"
            if label is not None:
                stated += rf"[\"']*\s*[\s,;]\s*([+-]?0*{label}|n0*{label})"
            if not any(re.fullmatch(stated, line.strip()) for line in lines):
                return ""
        return "other images or labels, as the list states"

    def command(self, folder: Path) -> list[str]:
        arguments = ["--validation-data", str(folder / "list.txt"), "--validation-images", "4"]
        return ["export", str(ROOT / "absent.onnx"), *arguments]


def _of_text(dice: Random, content: bytes) -> tuple[bytes, str]:
    return text.encoded(dice, content.decode())


def _pixels() -> bytes:
    """The smallest image: one white pixel as a PGM."""
    return b"P5 1 1 255\n\xff"


DOORS = (ClassNamesDoor(), ListDoor())
