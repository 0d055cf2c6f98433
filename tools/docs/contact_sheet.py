"""Draw docs/shapes100.png: validation images of the set "shapes100", 32 x 32 pixels, enlarged twice.

The upper part shows one image per class: one row per shape, one block per texture, and within it one column
per arrangement. The lower part shows several images of a few classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cnnx.data.builtin.shapes100 import CLASS_NAMES, draw_batch, labels_of
from cnnx.data.builtin.shapes100_fields import SHAPES, TEXTURES
from cnnx.data.builtin.shapes100_paint import ARRANGEMENTS
from tools import ROOT

DEFAULT = ROOT / "docs" / "shapes100.png"
SIZE, ENLARGED = 32, 2
CELL = SIZE * ENLARGED
LEFT, TOP, GAP = 60, 32, 6
BLOCK = len(ARRANGEMENTS) * CELL + GAP
EXAMPLES = 18
WITH_EXAMPLES = ("plain disc alone", "striped square pair", "checked triangle row", "ringed star trio")


def images(name: str, count: int) -> list[Image.Image]:
    """The first validation images of a class, without the lowest bits: noise would enlarge the file."""
    labels = labels_of(range(count * len(CLASS_NAMES)))
    pixels, _ = draw_batch(
        "validation", np.flatnonzero(labels == CLASS_NAMES.index(name)), size=SIZE, color="rgb"
    )
    return [Image.fromarray(each).resize((CELL, CELL), Image.Resampling.NEAREST) for each in pixels & 0xF0]


def sheet() -> Image.Image:
    """The whole sheet."""
    below = TOP + len(SHAPES) * CELL + TOP
    page = Image.new("RGB", (LEFT + len(TEXTURES) * BLOCK, below + len(WITH_EXAMPLES) * CELL), "white")
    write = ImageDraw.Draw(page)
    for row, shape in enumerate(SHAPES):
        write.text((4, TOP + row * CELL + CELL // 2), shape, "black")
        for block, texture in enumerate(TEXTURES):
            write.text((LEFT + block * BLOCK, 2), texture, "black")
            for column, arrangement in enumerate(ARRANGEMENTS):
                place = (LEFT + block * BLOCK + column * CELL, TOP + row * CELL)
                write.text((place[0], TOP - 14), arrangement, "black")
                page.paste(images(f"{texture} {shape} {arrangement}", 1)[0], place)
    for row, name in enumerate(WITH_EXAMPLES):
        top = below + row * CELL
        write.text((4, top + CELL // 2), name, "black")
        for column, image in enumerate(images(name, EXAMPLES)):
            page.paste(image, (3 * LEFT + column * CELL, top))
    return page


def main() -> None:
    """Draw the sheet and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT, help="file to write")
    out: Path = parser.parse_args().out
    sheet().save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
