"""Bundles of every kind that a consumer may meet."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import cnnx
from tests.inputs.graphs import plain
from tests.inputs.packaged import NAMES
from tests.inputs.tiny import tiny_graph


@pytest.fixture(scope="session")
def bundles(tmp_path_factory, cache):
    """Folders by kind; each is exported when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    few = {"validation_images": 32, "batch": (1, 4)}
    shapes = {"calibration_data": "shapes100", "validation_data": "shapes100", "calibration_images": 32}
    own = {**few, **shapes, "class_names": folder / "names.txt"}
    digits = {"calibration_data": "digits", "validation_data": "digits", "calibration_images": 16}
    wanted = {
        "gray": ("lenet5", {"precision": "int8", "calibration_images": 32, "validation_images": 32}),
        "rgb": ("small-mobilenet", {"precision": "int8", "calibration_images": 32, **few}),
        "pixels": ("small-mobilenet", {"precision": "fp16", "input": "uint8-nhwc-bgr", **few}),
        "bgr": (plain(), {"precision": "int8", "preprocessing": "keras-caffe", **own}),
        "letterbox": (plain(), {"precision": "fp16", "resize": "letterbox", **own}),
        "four": (plain(batch=4), {"precision": "fp16", **own, "batch": (4, 4)}),
        "assumed": (tiny_graph(), {"precision": "fp16", **digits, "validation_images": 16}),
    }

    def get(kind):
        if kind not in made:
            source, options = wanted[kind]
            if isinstance(source, onnx.ModelProto):
                onnx.save(source, folder / f"{kind}.onnx")
                source = folder / f"{kind}.onnx"
            made[kind] = cnnx.export(source, out=folder / kind, **options).bundle.path
        return made[kind]

    return get


@pytest.fixture(scope="session")
def photos():
    """RGB images larger than the networks' inputs."""
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 256, (6, 8, 3)).astype(np.uint8) for _ in range(4)]
    return [np.kron(photo, np.ones((9, 9, 1), np.uint8)) for photo in coarse]
