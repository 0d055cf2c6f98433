"""Folders of images: what lies there, under which names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.bundled import small_bundle
from tools.check.fuzz.door import Content, Door, Files
from tools.check.fuzz.mutators import text

_PIXELS = b"P5 2 2 255\n\0\x40\x80\xff"
_NAMES = (
    "z.png", "labels.txt", "labels.csv", ".hidden.png", "ä.png", "\udcff.png", "-.png", "a\nb.png",
    "x" * 250 + ".png", "UPPER.PNG", "a.png/b.png", "a/b/c/d/e/f.png", "00/1.png", "²/a.png", "٣/a.png",
    "9999999999999999999/a.png", "n00000003/a.png", "n00000003/sub/a.png", "0/n00000001/a.png", "note.txt",
    ".png", "a.jpg.", "\x1b[31m.png",
)  # fmt: skip
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_SPECIAL: tuple[Content, ...] = (
    None, Path("/dev/zero"), Path("/etc/passwd"), Path(), Path(".."), Path("loop.png"), Path("absent.png"),
    b"",
)  # fmt: skip


class FolderDoor(Door):
    """A folder of images, flat or of class folders."""

    name, reads = "image folder", "a folder of images"
    lenient = True  # `classify` reads no labels

    def prepare(self) -> None:
        import cnnx.data.sets
        import cnnx.pipeline.classify.classify  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {
            "flat": {f"{name}.png": _PIXELS for name in "abcd"},
            "labelled": {**{f"{name}.png": _PIXELS for name in "abcd"}, "labels.txt": b"a.png 1\nb.png,2\n"},
            "classes": {f"{label}/{name}.png": _PIXELS for label in range(4) for name in "ab"},
            "ids": {f"n0000000{label}/a.jpg": _PIXELS for label in range(4)},
        }

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed = dict(files)
        name = dice.choice(list(changed))
        match dice.randrange(5):
            case 0:
                how = "image missing"
                del changed[name]
            case 1:
                how = "image added"
                changed[dice.choice(_NAMES)] = _PIXELS
            case 2:
                how = "image renamed"
                changed[dice.choice((*_NAMES, text.edit(dice, name)[0]))] = changed.pop(name)
            case 3:
                how = "no regular file"
                changed[dice.choice((name, "loop.png", "labels.txt"))] = dice.choice(_SPECIAL)
            case _:
                how = "labels"
                changed["labels.txt"] = text.encoded(dice, "a.png 1\nb.png,2\n# end\n")[0]
        return _that_can_be_laid(changed), how

    def read(self, folder: Path) -> Any:
        from cnnx.data.sets import open_images

        ids = [f"n{number:08}" for number in range(4)]
        found = []
        for class_ids in (None, ids):
            images = open_images(
                str(folder), size=8, color="rgb", split="validation", classes=4, class_ids=class_ids
            )
            found.append(sorted((item.id, item.label, item.digest()) for item in images))
        return found

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """Every image is a file of the folder, and labels are those of a file or of the class folders."""
        base = folder.resolve()
        for images in after:
            labels = {label for _, label, _ in images}
            if not labels <= {None, 0, 1, 2, 3}:
                return ""
            if not all((base / name).is_file() for name, _, _ in images):
                return ""
        return "other images, as they lie there"

    def command(self, folder: Path) -> list[str]:
        return ["classify", str(small_bundle()), str(folder)]


def _that_can_be_laid(files: Files) -> Files:
    """Without names that no file can have, or under which a file and a folder would be the same."""
    names = {
        name: content
        for name, content in files.items()
        if name and not _NO_BYTES.search(name) and "\0" not in name
        and not name.startswith("/") and ".." not in name.split("/")
        and all(part != "." and 0 < len(os.fsencode(part)) < 256 for part in name.split("/"))
    }  # fmt: skip
    above = {"/".join(name.split("/")[:end]) for name in names for end in range(1, name.count("/") + 1)}
    return {name: content for name, content in names.items() if name not in above}


DOORS = (FolderDoor(),)
