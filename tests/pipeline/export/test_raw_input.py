"""`export --input`: bundles that take pixels, from the command to every verb that runs them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

import cnnx
from cnnx.bundle import MANIFEST, Bundle
from cnnx.bundle.sealed import write_sealed
from cnnx.data.geometry import crop
from cnnx.errors import BundleError, ImageError, UsageError
from cnnx.preprocessing import Preprocessing
from tests.conftest import invoke

FEW = {"calibration_images": 32, "validation_images": 32}


def export(folder, form, **options):
    made = cnnx.export("small-mobilenet", precision="int8", input=form, out=folder, **FEW, **options)
    return made.bundle


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return export(tmp_path_factory.mktemp("plain") / "net", None, batch=(1, 4))


@pytest.fixture(scope="module")
def bgr(tmp_path_factory):
    return export(tmp_path_factory.mktemp("bgr") / "net", "uint8-nhwc-bgr", batch=(1, 4))


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return export(tmp_path_factory.mktemp("frames") / "net", "uint8-nchw:96x128")


def test_int8_on_pixels_judges_as_int8_on_floats(plain, bgr):
    """The same weights, scales and images: the logits are equal, so every rate is."""
    floats, pixels = plain.reference(), bgr.reference()
    assert np.array_equal(floats.crops, pixels.crops)
    assert np.array_equal(floats.graph, pixels.graph)
    entry = onnx.load(bgr.model).graph.input[0].type.tensor_type
    assert entry.elem_type == onnx.TensorProto.UINT8
    assert [each.dim_value or each.dim_param for each in entry.shape.dim][1:] == [32, 32, 3]
    stated = bgr.manifest.inputs[0]
    assert (stated.type, stated.layout, stated.shape) == ("uint8", "NHWC", (None, 32, 32, 3))
    assert bgr.manifest.recipe["input"]["format"] == "uint8-nhwc-bgr"


def test_every_verb_runs_a_network_that_takes_pixels(plain, bgr):
    tested = cnnx.validate(bgr.path)
    assert tested.self_test.verdict.value == "passed"
    judged = cnnx.validate(bgr.path, validation_data="shapes100", validation_images=32)
    assert judged.validation.images == 32
    measured = cnnx.bench(bgr.path, batch=(1, 2), seconds=0.01)
    assert [run.latency.batch for run in measured.measurements] == [1, 2]
    assert cnnx.diagnose(bgr.path, images=16).findings.layers
    shown = " ".join(invoke("inspect", str(bgr.path)).output.split())
    assert (
        "center crop of 32 x 32; uint8 NHWC; EXIF orientation ignored; in the graph: (x / 255 - mean) / std"
        in shown
    )
    photos = np.random.default_rng(1).integers(0, 256, (5, 40, 50, 3)).astype(np.uint8)
    with cnnx.load(plain.path) as floats, cnnx.load(bgr.path) as pixels:
        assert np.array_equal(floats.predict(photos).logits, pixels.predict(photos).logits)
        raw = np.stack([pixels.crop(each) for each in photos])[:4, ..., ::-1]
        assert np.array_equal(pixels.run(raw)["logits"], pixels.predict(photos[:4]).logits)
        with pytest.raises(ImageError, match="takes pixels"):
            pixels.run(raw.astype(np.float32))
        with pytest.raises(ImageError, match="takes floats"):
            floats.run(raw.transpose(0, 3, 1, 2))


def test_a_frame_of_the_stated_size_is_given_whole(frames):
    """The graph resizes it; Pillow's antialiased crop of the same frame is close, and not the same."""
    stated = frames.manifest.inputs[0]
    assert (stated.shape, stated.layout) == ((1, 3, 96, 128), "NCHW")
    smooth = Image.fromarray(np.random.default_rng(2).integers(0, 256, (6, 8, 3)).astype(np.uint8))
    frame = smooth.resize((128, 96), Image.Resampling.BICUBIC)
    preprocessing = Preprocessing(**frames.manifest.recipe["preprocessing"])
    with cnnx.load(frames.path) as net:
        assert np.array_equal(net.crop(frame), np.asarray(frame))
        whole = net.predict(frame).logits
        cropped = net.predict(Image.fromarray(crop(frame, preprocessing, (3, 32, 32)))).logits
        assert np.array_equal(whole, net.run(np.asarray(frame).transpose(2, 0, 1)[None])["logits"])
        assert not np.array_equal(whole, cropped)
        assert np.corrcoef(whole[0], cropped[0])[0, 1] > 0.95


def test_a_graph_that_resizes_says_how_it_differs(tmp_path):
    out = tmp_path / "net"
    few = ("--calibration-images", "32", "--validation-images", "32")
    done = invoke(
        "export", "small-mobilenet", "--int8", *few, "--input", "uint8-nchw:96x128", "--out", str(out)
    )
    shown = " ".join(done.output.split())
    assert "The graph resizes images of 96 x 128 without antialiasing. On 32 validation images" in shown
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["recipe"]["input"]["format"] == "uint8-nchw-rgb:96x128"
    assert manifest["notes"][0] in " ".join(invoke("inspect", str(out)).output.split())


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("uint8", "invalid --input 'uint8'"),
        ("uint8-nhwc-gray", "the input has the channels gray, but the network takes rgb"),
        ("uint8-nhwc:24x24", "smaller than the network's resize makes them"),
        ("uint8-nhwc:0x24", "invalid --input"),
        ("float32-nhwc", "invalid --input"),
    ],
)
def test_what_a_graph_cannot_do_is_refused_before_any_work(tmp_path, form, said):
    with pytest.raises(UsageError, match=said) as refused:
        export(tmp_path / "net", form)
    assert refused.value.hint
    assert not (tmp_path / "net").exists()


def test_a_manifest_whose_input_contradicts_its_recipe_is_refused(bgr, tmp_path):
    copy = tmp_path / "net"
    shutil.copytree(bgr.path, copy)
    data = json.loads((copy / MANIFEST).read_text())
    del data["seal"]
    data["recipe"]["input"]["format"] = "uint8-nchw-bgr"
    write_sealed(copy / MANIFEST, data)
    with pytest.raises(BundleError, match=r"inputs\[0\].layout is 'NHWC', but the recipe states 'NCHW'"):
        Bundle.open(copy)
