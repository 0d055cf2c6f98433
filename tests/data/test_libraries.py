"""Presets, timm configs and OpenCV's resampling against the libraries' results; see golden/README.md."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnnx.data.geometry import crop
from cnnx.data.images import ImageFile
from cnnx.data.normalize import normalize
from cnnx.preprocessing import Preprocessing
from cnnx.recipe import recipe_from_dict

GOLDEN = Path(__file__).parent / "golden"
LIBRARIES = json.loads((GOLDEN / "libraries.json").read_text())
OPENCV = json.loads((GOLDEN / "opencv.json").read_text())
METHODS = {
    "bilinear": "linear",
    "bicubic": "cubic",
    "nearest": "nearest",
    "lanczos": "lanczos4",
    "box": "area",
}


def digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def read(table: dict[str, Any], shape: list[int], folder: Path) -> Preprocessing:
    """The preprocessing as a recipe with this table reads it."""
    data = {"name": "x", "model": {"definition": "x", "classes": 2}, "input": {"shape": shape}}
    return recipe_from_dict({**data, "preprocessing": table}, where=folder / "x.toml").preprocessing


@pytest.mark.parametrize(
    "case", LIBRARIES, ids=[f"{c['image']}-{c.get('preset') or c['config']['crop_mode']}" for c in LIBRARIES]
)
@pytest.mark.parametrize("nested", [True, False], ids=["config.json", "pretrained_cfg"])
def test_the_networks_input_equals_the_librarys_to_the_last_bit(case, nested, tmp_path):
    preset = case.get("preset")
    if preset is None:
        preset = "config.json"
        config = {"pretrained_cfg": case["config"], "num_classes": 10} if nested else case["config"]
        (tmp_path / preset).write_text(json.dumps(config))
    preprocessing = read({"preset": preset}, case["shape"], tmp_path)
    image = ImageFile(case["image"], GOLDEN / f"{case['image']}.png").load()
    pixels = crop(image, preprocessing, tuple(case["shape"]))
    assert digest(normalize(pixels[None], preprocessing)[0]) == case["sha256"]


@pytest.mark.parametrize("interpolation", METHODS)
def test_pixels_equal_opencvs_to_the_last_bit(interpolation):
    pytest.importorskip("cv2", reason="resampling as OpenCV does needs the extra opencv")
    for case in (case for case in OPENCV if case["method"] == METHODS[interpolation]):
        table = {
            "fit": "squash",
            "interpolation": interpolation,
            "resampling": "opencv",
            "resize": case["size"],
        }
        shape = (3, *case["size"])
        image = ImageFile(case["image"], GOLDEN / f"{case['image']}.png").load()
        assert digest(crop(image, read(table, list(shape), GOLDEN), shape)) == case["sha256"], case
