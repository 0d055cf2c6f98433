"""DeepStream's configuration, read as nvinfer reads it, and the graph fed as nvinfer feeds it."""

from __future__ import annotations

import configparser
import json
import re

import numpy as np
import pytest

import cnnx
from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.package.deepstream import src_crop
from cnnx.preprocessing import Preprocessing
from cnnx.runtimes import BuildRequest
from tests.inputs.packaged import NAMES, rgb_crops, run_graph

# The keys that a classifier may have, and how gst-nvinfer's gstnvinfer_property_parser.cpp reads them
# (NVIDIA/DeepStream at 581889d).
KEYS = {
    "gpu-id": int,
    "gie-unique-id": int,
    "process-mode": int,
    "network-type": int,
    "onnx-file": str,
    "model-engine-file": str,
    "labelfile-path": str,
    "batch-size": int,
    "network-mode": int,
    "strongly-typed": lambda text: {"1": True, "0": False, "true": True, "false": False}[text],
    "infer-dims": lambda text: [int(part) for part in text.split(";")],
    "model-color-format": int,
    "net-scale-factor": float,
    "maintain-aspect-ratio": lambda text: {"1": True, "0": False, "true": True, "false": False}[text],
    "symmetric-padding": lambda text: {"1": True, "0": False, "true": True, "false": False}[text],
    "scaling-filter": int,
    "classifier-threshold": float,
}


def read(folder):
    """The file as GLib's key files are: groups, keys, comments with "#" at the start of a line."""
    parser = configparser.RawConfigParser(
        delimiters="=", comment_prefixes="#", inline_comment_prefixes=None, strict=True
    )
    parser.optionxform = str
    parser.read_string((folder / "config_infer.txt").read_text("utf-8"))
    assert parser.sections() == ["property"]
    return {key: KEYS[key](value) for key, value in parser["property"].items()}


def labels_of(file):
    """InferPostprocessor::parseLabelsFile in nvdsinfer_context_impl.cpp: a line for each output layer."""
    return [line.split(";") for line in file.read_text("utf-8").split("\n") if line]


def nvinfer(folder, images):
    """The label and probability of each RGB image of the network's size, as nvinfer finds them."""
    config, [labels] = read(folder), labels_of(folder / "labels.txt")
    # NvDsInferConvert_C3ToP3Float and its reversed form, with y = net-scale-factor * (x - mean).
    pixels = images[..., ::-1] if config["model-color-format"] == 1 else images
    planes = config["net-scale-factor"] * pixels.transpose(0, 3, 1, 2).astype(np.float32)
    assert list(planes.shape[1:]) == config["infer-dims"]
    found = []
    for shares in run_graph(folder / config["onnx-file"], np.ascontiguousarray(planes, np.float32)):
        # ClassifyPostprocessor::parseAttributesFromSoftmaxLayers
        best, most = None, 0.0
        for number, share in enumerate(shares):
            if share > config["classifier-threshold"] and share > most:
                best, most = number, share
        found.append((labels[best], most))
    return found


@pytest.mark.parametrize("kind", ["gray", "rgb", "bgr", "letterbox", "assumed"])
def test_nvinfer_finds_the_classes_that_cnnx_finds(bundles, photos, tmp_path, kind):
    result = cnnx.write_package(bundles(kind), consumer="deepstream", out=tmp_path / "package")
    images, expected = rgb_crops(bundles(kind), photos)
    for (label, share), [best] in zip(nvinfer(result.folder, images), expected.top(1), strict=True):
        assert label == best.name.replace(";", ",")
        assert share == pytest.approx(best.probability, abs=0.02)
    difference = json.loads((result.folder / "difference.json").read_text())
    assert difference["top1_changed"] == 0 and difference["relative"] < 0.02
    assert any("outputs differ by" in note for note in result.notes)
    config = read(result.folder)
    assert config["process-mode"] == 1 and config["network-type"] == 1  # whole frames, classifier
    assert config["batch-size"] == Bundle.open(bundles(kind)).manifest.batch[1]
    assert config["maintain-aspect-ratio"] == config["symmetric-padding"] == (kind == "letterbox")
    assert len((result.folder / "README.md").read_text("utf-8").splitlines()) <= 42


def test_names_that_nvinfer_would_split(bundles, tmp_path):
    folder = cnnx.write_package(bundles("bgr"), consumer="deepstream", out=tmp_path / "package").folder
    assert labels_of(folder / "labels.txt") == [[name.replace(";", ",") for name in NAMES]]


def test_the_pipeline_cuts_out_what_the_network_sees(bundles, tmp_path):
    folder = cnnx.write_package(bundles("rgb"), consumer="deepstream", out=tmp_path / "package").folder
    text = (folder / "README.md").read_text("utf-8")
    crop = re.search(r"nvvideoconvert src-crop=(\d+):(\d+):(\d+):(\d+) ", text)
    left, top, wide, high = map(int, crop.groups())
    # Resized to 56 x 32 as torchvision does, of which columns 12 to 44 are cut out.
    assert (left, top) == (2 * round(12 * 1920 / 56 / 2), 0)
    assert (wide, high) == (2 * round(32 * 1920 / 56 / 2), 1080)
    assert text.count(f"width={wide}") == 2 and text.count(f"height={high}") == 2
    imagenet = Preprocessing()  # resized to 455 x 256, of which columns 116 to 340 are cut out
    assert src_crop(imagenet, (224, 224), (1920, 1080)) == "490:68:946:944"
    squashed = Preprocessing(fit="squash", resize=(224, 224))
    assert src_crop(squashed, (224, 224), (1280, 720)) == "0:0:1280:720"
    whole = Preprocessing(fit="none", resize=None)
    assert src_crop(whole, (224, 224), (640, 480)) == "208:128:224:224"
    assert src_crop(whole, (500, 500), (640, 480)) is None


RTX = runtimes.get("rtx")


@pytest.mark.skipif(RTX.missing() is not None, reason=str(RTX.missing()))
@pytest.mark.parametrize("consumer", ["deepstream", "jetson-inference"])
@pytest.mark.parametrize("kind", ["gray", "rgb", "bgr"])
def test_tensorrt_parses_and_builds_the_changed_graphs(bundles, tmp_path, consumer, kind):
    folder = cnnx.write_package(bundles(kind), consumer=consumer, out=tmp_path / "package").folder
    manifest = Bundle.open(bundles(kind)).manifest
    one = consumer == "jetson-inference" or manifest.batch == (1, 1)
    expected = {
        layer["node"]: layer["precision"] for layer in manifest.layers if layer["op"] in ("Conv", "Gemm")
    }
    request = BuildRequest(
        manifest.precision, expected, batch=(1, 1, 1) if one else (1, 4, 4), compute_capabilities=(86,)
    )
    [engine] = RTX.build(folder / "model.onnx", request)
    assert engine.layer_types == expected
