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
METHODS = {
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "nearest": "INTER_NEAREST",
    "lanczos": "INTER_LANCZOS4",
    "box": "INTER_AREA",
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
@pytest.mark.parametrize("name", ["gray", "landscape", "portrait"])
def test_pixels_equal_opencvs_to_the_last_bit(name, interpolation):
    """OpenCV's on this machine: its bicubic pixels depend on the CPU (docs/decisions.md)."""
    cv2 = pytest.importorskip("cv2", reason="resampling as OpenCV does needs the extra opencv")
    image = ImageFile(name, GOLDEN / f"{name}.png").load()
    for height, width in ((64, 64), (224, 224), (300, 160)):
        table = {"fit": "squash", "interpolation": interpolation, "resampling": "opencv"}
        preprocessing = read({**table, "resize": [height, width]}, [3, height, width], GOLDEN)
        method = getattr(cv2, METHODS[interpolation])
        expected = cv2.resize(np.asarray(image.convert("RGB")), (width, height), interpolation=method)
        assert np.array_equal(crop(image, preprocessing, (3, height, width)), expected)
