"""Tiles of photographs that come with Debian packages, for networks that were trained on photographs.

They have no labels: agreement and divergence can be measured on them, accuracy cannot. Needs apt-get and
dpkg-deb.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tools import ROOT

FOLDER = ROOT / "build" / "photographs"
PHOTOGRAPHS: Mapping[str, Sequence[str]] = {
    "lomiri-wallpapers-16.04": ("usr/share/backgrounds/*.jpg",),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds/Kleiber*", "usr/share/backgrounds/Infinite-Sea*"),
    "mate-backgrounds": ("usr/share/backgrounds/mate/nature/*.jpg",),
    "opencv-doc": tuple(
        f"usr/share/doc/opencv-doc/examples/data/{name}.*"
        for name in (
            *("aloeL", "apple", "baboon", "basketball1", "board", "box_in_scene", "building", "butterfly"),
            *("cards", "chicky_512", "fruits", "graf1", "home", "leuvenA", "messi5", "orange"),
            *("rubberwhale1", "smarties", "squirrel_cls", "stuff"),
        )
    ),
    "python3-skimage": tuple(
        f"usr/lib/python3/dist-packages/skimage/data/{name}.*"
        for name in ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
    ),
}
"""Debian package -> patterns of photographs in it."""

TILE = 320
_SHORTER_SIDES = range(TILE, 2000, 160)  # photographs are reduced to these, and never enlarged
_LEAST_SPREAD = 12.0  # standard deviation of the gray levels; below, a tile shows plain sky

Part = Literal["calibration", "validation"]


def tiles(part: Part) -> Path:
    """A folder of PNG files (`TILE` x `TILE`, RGB), made on first use; the parts share no photograph.

    Raises:
        subprocess.CalledProcessError: a package cannot be downloaded or unpacked.
        RuntimeError: a package has no photograph under one of the names.
    """
    folder = FOLDER / part
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as unpacked:
            photographs = sorted(_unpacked(Path(unpacked)), key=lambda file: file.name)
            for name, first in (("calibration", 0), ("validation", 1)):
                _cut(photographs[first::2], FOLDER / name)
    return folder


def _unpacked(folder: Path) -> Iterator[Path]:
    for package, patterns in PHOTOGRAPHS.items():
        subprocess.run(
            ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", package], cwd=folder, check=True
        )
        (deb,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb.name, package], cwd=folder, check=True)
        for pattern in patterns:
            found = [file for file in (folder / package).glob(pattern) if file.suffix in (".jpg", ".png")]
            if not found:
                raise RuntimeError(f"{package} has no {pattern}: PHOTOGRAPHS in {__file__} is out of date")
            yield from found


def _cut(photographs: Sequence[Path], folder: Path) -> None:
    """Cut photographs into tiles, at several sizes."""
    from PIL import Image, ImageStat

    draft = folder.with_suffix(".part")
    draft.mkdir(parents=True, exist_ok=True)
    for file in photographs:
        with Image.open(file) as opened:
            whole = opened.convert("RGB")
        for side in _SHORTER_SIDES:
            if side > min(whole.size):
                break
            size = [round(each * side / min(whole.size)) for each in whole.size]
            reduced = whole.resize((size[0], size[1]), Image.Resampling.LANCZOS)
            for x, y in _corners(*reduced.size):
                tile = reduced.crop((x, y, x + TILE, y + TILE))
                if ImageStat.Stat(tile.convert("L")).stddev[0] >= _LEAST_SPREAD:
                    tile.save(draft / f"{file.stem}-{side}-{x}-{y}.png", compress_level=1)
    draft.rename(folder)


def _corners(width: int, height: int) -> Iterator[tuple[int, int]]:
    """The upper left corners of as many tiles as fit, in the middle."""
    across, down = width // TILE, height // TILE
    left, top = (width - across * TILE) // 2, (height - down * TILE) // 2
    for row in range(down):
        for column in range(across):
            yield left + column * TILE, top + row * TILE
