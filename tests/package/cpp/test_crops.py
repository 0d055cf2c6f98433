"""Crops and prepared inputs, bit for bit those of Python."""

from __future__ import annotations

import dataclasses
import shutil
import struct
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnx.bundle.manifest import TensorInfo
from cnnx.bundle.sealed import write_sealed
from cnnx.data.geometry import crop
from cnnx.data.normalize import normalize
from cnnx.preprocessing import Preprocessing, contradiction
from cnnx.store.digests import digest_of_file
from tests.inputs.bundles import manifest

pytestmark = pytest.mark.slow

SIDE = st.integers(1, 40)
MEAN = st.sampled_from([0.0, 0.485, 0.5, 127.5])
# How the caller's bytes are read: cnnx_color, and their order in RGB.
COLORS = {"gray": 0, "rgb": 1, "bgr": 2, "rgba": 3, "bgra": 4}


@st.composite
def cases(draw):
    """A preprocessing, the shape of a network's input, and images of any size."""
    color = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    channels = 1 if color == "gray" else 3
    fit = draw(st.sampled_from(["shorter", "longer", "squash", "letterbox", "none"]))
    shape = (channels, draw(SIDE), draw(SIDE))
    resize = None
    if fit != "none":
        grown = [side + draw(st.integers(0, 20)) for side in shape[1:]]
        resize = draw(st.sampled_from([max(grown), tuple(grown)]))
    preprocessing = Preprocessing(
        color=color,
        resize=resize,
        interpolation=draw(st.sampled_from(["bilinear", "bicubic", "box", "nearest"])),
        mean=tuple(draw(MEAN) for _ in range(channels)),
        std=tuple(draw(st.sampled_from([0.225, 1.0, 58.395])) for _ in range(channels)),
        fit=fit,
        fill=tuple(draw(st.integers(0, 255)) for _ in range(draw(st.sampled_from([1, channels])))),
        divisor=draw(st.sampled_from([1.0, 127.5, 255.0])),
    )
    assert contradiction(preprocessing, shape) is None
    longest = draw(st.sampled_from([3, 60, 300]))
    images = [
        (draw(st.sampled_from(list(COLORS))), draw(st.integers(1, longest)), draw(st.integers(1, longest)))
        for _ in range(draw(st.integers(1, 4)))
    ]
    return preprocessing, shape, images, draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 5))


def write_manifest(folder, preprocessing, shape, pillow=PIL.__version__):
    recipe = {
        "name": "net",
        "model": {"definition": "net", "classes": 10},
        "input": {"shape": list(shape), "name": "input"},
        "preprocessing": dataclasses.asdict(preprocessing),
    }
    info = (TensorInfo("input", "float32", (None, *shape), "NCHW"),)
    (folder / "reference.npz").write_bytes(b"not read")
    files = {"model.onnx": "0" * 64, "reference.npz": digest_of_file(folder / "reference.npz")}
    versions = {"cnnx": "0", "pillow": pillow}
    whole = dataclasses.replace(manifest(), recipe=recipe, inputs=info, files=files, versions=versions)
    write_sealed(folder / "manifest.json", whole.as_dict())


def pixels_of(color, width, height, random):
    """Random pixels with some flat and some extreme regions, and the Pillow image that they are."""
    channels = {"gray": 1, "rgb": 3, "bgr": 3}.get(color, 4)
    pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    pixels[: height // 3] = random.choice([0, 255], (height // 3, width, channels))
    if color == "gray":
        return pixels, Image.fromarray(pixels[..., 0])
    rgb = pixels[..., [2, 1, 0]] if color.startswith("bgr") else pixels[..., :3]
    return pixels, Image.fromarray(np.ascontiguousarray(rgb))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("crops")


def check(program, folder, drawn, *, crop=crop, pillow=PIL.__version__):
    """One run of the program for all cases."""
    asked, expected = b"", []
    for index, (preprocessing, shape, images, seed, gap) in enumerate(drawn):
        place = folder / str(index)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        write_manifest(place, preprocessing, shape, pillow)
        random, name = np.random.default_rng(seed), str(place).encode()
        asked += struct.pack("<I", len(name)) + name + struct.pack("<I", len(images))
        for color, width, height in images:
            pixels, image = pixels_of(color, width, height, random)
            rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, gap)), constant_values=77)
            asked += struct.pack("<4I", COLORS[color], width, height, rows.shape[1]) + rows.tobytes()
            cropped = crop(image, preprocessing, shape)
            expected.append(
                (cropped, normalize(cropped[None], preprocessing), (preprocessing, color, width, height))
            )
    done = program("crops", text=False, data=asked)
    assert done.returncode == 0, done.stderr.decode()
    at = 0
    for cropped, prepared, case in expected:
        for array in (cropped, prepared):
            found = np.frombuffer(done.stdout, array.dtype, array.size, at).reshape(array.shape)
            at += array.nbytes
            np.testing.assert_array_equal(found, array, err_msg=str(case))
    assert at == len(done.stdout)


@settings(max_examples=40)
@given(drawn=st.lists(cases(), min_size=1, max_size=12))
def test_crops_are_pillows_to_the_last_bit(program, folder, drawn):
    check(program, folder, drawn)


def test_photographs_through_the_presets_of_imagenet(program, folder):
    """Sizes as in use: large images shrunk to 224, each interpolation."""
    drawn = [
        (
            Preprocessing(interpolation=name, color=color),
            (3, 224, 224),
            [("rgb", 500, 375), ("bgr", 333, 900)],
            7,
            0,
        )
        for name in ("bilinear", "bicubic", "box", "nearest")
        for color in ("rgb", "bgr")
    ]
    drawn.append(
        (Preprocessing(resize=342, interpolation="bicubic"), (3, 299, 299), [("rgb", 4032, 3024)], 7, 0)
    )
    check(program, Path(folder), drawn)


def rows_first(image, preprocessing, shape):
    """The crop that Pillow gave before 13.0: always rows and then columns."""
    height, width = preprocessing.box
    halfway = image.convert("RGB").resize((width, image.height), Image.Resampling.BICUBIC)
    return np.asarray(halfway.resize((width, height), Image.Resampling.BICUBIC))


def test_a_bundle_of_an_older_pillow_gets_its_pixels(program, folder):
    """Since 13.0, Pillow starts with the columns of tall images, and a pixel can differ by 1."""
    preprocessing = Preprocessing(resize=(20, 30), fit="squash", interpolation="bicubic")
    images = [("rgb", width, height) for width, height in ((37, 122), (40, 300), (90, 95), (25, 21))]
    drawn = [(preprocessing, (3, 20, 30), images, 7, 0)]
    for pillow in ("12.3.0", "9.5.0"):
        check(program, folder, drawn, crop=rows_first, pillow=pillow)
