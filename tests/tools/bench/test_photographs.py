"""tools/photographs: tiles of photographs, none of which is in both parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools import photographs


def test_parts_share_no_photograph_and_plain_tiles_are_left_out(tmp_path: Path, monkeypatch: Any) -> None:
    random, files = np.random.default_rng(0), []
    for name, width, height in (("a", 1000, 700), ("b", 330, 900), ("c", 640, 480), ("d", 300, 300)):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels[:, : photographs.TILE] = 100  # sky
        files.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(files[-1])
    monkeypatch.setattr(photographs, "FOLDER", tmp_path / "made")
    monkeypatch.setattr(photographs, "_unpacked", lambda _: iter(files[::-1]))
    parts = {part: sorted(photographs.tiles(part).iterdir()) for part in ("calibration", "validation")}
    names = {part: {file.name.partition("-")[0] for file in found} for part, found in parts.items()}
    assert names == {"calibration": {"a", "c"}, "validation": set()}
    for file in parts["calibration"]:
        with Image.open(file) as tile:
            assert tile.size == (photographs.TILE, photographs.TILE)
            assert np.asarray(tile.convert("L")).std() >= 12
    assert photographs.tiles("validation") == tmp_path / "made" / "validation"
