"""jetson-inference's cache, labels and preprocessing, imitated from its source at 45da40a8."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import cnnx
from tests.inputs.packaged import NAMES, fake_modules, program, rgb_crops, run_graph


def cache_of(model, *, version, precision="FP16"):
    """mCacheEnginePath in tensorNet::LoadNetwork (c/tensorNet.cpp), for imageNet's defaults."""
    batch, gpu_fallback = 1, True
    return f"{model}.{batch}.{int(gpu_fallback)}.{version}.GPU.{precision}.engine"


def cache_is_valid(model, cache):
    """tensorNet::ValidateEngine, with its command."""
    command = f'echo "$(cat {model}.sha256sum) {model}" | sha256sum --check --status'
    return Path(cache).exists() and subprocess.run(["sh", "-c", command]).returncode == 0


def class_labels(file):
    """tensorNet::LoadClassLabels: descriptions; lines are read by fgets into 512 bytes."""
    found = []
    for line in file.read_bytes().splitlines(keepends=True):
        while line:
            text, line = line[:511], line[511:]
            if len(text) > 9 and text[:1] == b"n" and text[9:10] == b" ":
                found.append(text[10:-1])
            else:
                found.append(text.removesuffix(b"\n"))
    return [name.decode() for name in found]


class ImageNet:
    """`imageNet` of jetson_inference for an ONNX model, on ONNX Runtime in place of TensorRT 10."""

    def __init__(self, *, model, labels, input_blob, output_blob):
        graph = onnx.load(model).graph
        assert ([one.name for one in graph.input], [one.name for one in graph.output]) == (
            [input_blob],
            [output_blob],
        )
        # LoadEngine: the input's dimensions without the batch; the output's as they are, from TensorRT 10 on,
        # and without the batch before, unless there is one alone.
        sizes = [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim]
        [classes] = [size.dim_value for size in graph.output[0].type.tensor_type.shape.dim]
        assert sizes[:2] == [1, 3]
        self.size, self.model = sizes[2:], model
        self.names = class_labels(Path(labels))
        assert len(self.names) == classes  # imageNet::init refuses others

    def given(self, pixels):
        """cudaTensorNormMeanRGB in c/tensorConvert.cu: the nearest pixel, normalized as for ImageNet."""
        high, wide = self.size
        rows = (np.arange(high, dtype=np.float32) * np.float32(pixels.shape[0] / high)).astype(int)
        columns = (np.arange(wide, dtype=np.float32) * np.float32(pixels.shape[1] / wide)).astype(int)
        scaled = pixels[rows][:, columns].astype(np.float32) * np.float32(1 / 255)
        mean = np.array([0.485, 0.456, 0.406], np.float32)
        return ((scaled - mean) / np.array([0.229, 0.224, 0.225], np.float32)).transpose(2, 0, 1)

    def Classify(self, pixels, *, topK):  # noqa: N802, N803 - as jetson-inference names them
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
        [shares] = run_graph(self.model, np.ascontiguousarray(self.given(pixels)[None]))
        found = [(number, share) for number, share in enumerate(shares) if share >= 0.01]
        return sorted(found, key=lambda pair: -pair[1])[:topK]

    def GetClassDesc(self, index):  # noqa: N802
        return self.names[index]


@pytest.mark.parametrize("kind", ["gray", "rgb", "bgr", "letterbox", "assumed"])
def test_classify_prints_the_classes_that_cnnx_finds(bundles, photos, tmp_path, monkeypatch, capsys, kind):
    folder = cnnx.write_package(bundles(kind), consumer="jetson-inference", out=tmp_path / "package").folder
    names = json.loads((folder / "network.json").read_text("utf-8"))
    net = ImageNet(
        model=str(folder / "model.onnx"),
        labels=str(folder / "labels.txt"),
        input_blob=names["input"],
        output_blob=names["output"],
    )
    # Pixels of the network's size, where imageNet's own scaling changes nothing.
    crops, expected = rgb_crops(bundles(kind), photos)
    for pixels, [best] in zip(crops, expected.top(1), strict=True):
        [(index, share)] = net.Classify(pixels, topK=1)
        assert net.GetClassDesc(index) == best.name.encode()[:480].decode("utf-8", "ignore")
        assert share == pytest.approx(best.probability, abs=0.02)
    # Larger ones, through the program.
    frames = iter(photos)

    class Source:
        def __init__(self, uri):
            assert uri == "csi://0"
            self.left = len(photos)

        def IsStreaming(self):  # noqa: N802
            return self.left > 0

        def Capture(self):  # noqa: N802
            self.left -= 1
            return next(frames)

    def same(image):
        return image

    fake_modules(
        monkeypatch,
        jetson_inference={"imageNet": ImageNet},
        jetson_utils={
            "cudaDeviceSynchronize": lambda: None,
            "cudaFromNumpy": same,
            "cudaToNumpy": same,
            "videoSource": Source,
        },
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "seen", raising=False)
    monkeypatch.setattr(sys, "argv", ["classify.py", "csi://0"])
    program(folder / "classify.py").main()
    monkeypatch.delitem(sys.modules, "seen", raising=False)
    lines = capsys.readouterr().out.splitlines()
    same_class = [
        line.rpartition(" ")[0] == best.name.encode()[:480].decode("utf-8", "ignore")
        for line, [best] in zip(lines, expected.top(1), strict=True)
    ]
    assert sum(same_class) >= len(photos) - 1  # Pillow rounds differently in a part of an image


def test_the_crop_of_the_program_is_that_of_the_network(bundles, photos, tmp_path, monkeypatch):
    for kind in ("rgb", "letterbox"):
        folder = cnnx.write_package(bundles(kind), consumer="jetson-inference", out=tmp_path / kind).folder
        fake_modules(
            monkeypatch,
            jetson_inference={"imageNet": None},
            jetson_utils=dict.fromkeys(
                ("cudaDeviceSynchronize", "cudaFromNumpy", "cudaToNumpy", "videoSource")
            ),
        )
        monkeypatch.syspath_prepend(str(folder))
        loaded = program(folder / "classify.py")
        smooth = [np.asarray(Image.fromarray(photo).resize((72, 54))) for photo in photos]
        with cnnx.load(bundles(kind)) as net:
            for photo in smooth:
                difference = loaded.crop(photo).astype(int) - net.crop(photo)
                assert np.abs(difference).mean() < 2 and np.abs(difference).max() <= 16


def test_the_engine_gets_the_name_of_the_cache(bundles, tmp_path):
    folder = cnnx.write_package(bundles("rgb"), consumer="jetson-inference", out=tmp_path / "package").folder
    model = folder / "model.onnx"
    assert (folder / "model.onnx.sha256sum").read_text() == hashlib.sha256(
        model.read_bytes()
    ).hexdigest() + "\n"
    tools = tmp_path / "tools"
    tools.mkdir()
    # samples/common/logging.h and sampleReporting of TensorRT: the first line has NV_TENSORRT_VERSION.
    (tools / "trtexec").write_text(
        "#!/bin/sh\n"
        'echo "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b30] # trtexec $*"\n'
        '[ "$2" = --stronglyTyped ] || exit 1\n'
        'echo plan >"${3#--saveEngine=}"\n'
        'echo "&&&& PASSED TensorRT.trtexec [TensorRT v100300] [b30] # trtexec $*"\n'
    )
    (tools / "trtexec").chmod(0o755)
    run = [str(folder / "build.sh")]
    with_tool = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(run, env=with_tool, capture_output=True, text=True, check=True)
    cache = cache_of(model, version=100300)
    assert cache == str(folder / done.stdout.strip())
    assert cache_is_valid(model, cache)
    model.write_bytes(model.read_bytes() + b"x")
    assert not cache_is_valid(model, cache)
    (tools / "trtexec").write_text("#!/bin/sh\necho no GPU >&2\nexit 1\n")
    failed = subprocess.run(run, env=with_tool, capture_output=True, text=True)
    assert failed.returncode == 1 and "no GPU" in failed.stderr


def test_every_name_is_read_as_it_is(bundles, tmp_path):
    """ "nightbird owl" looks like a synset, and long lines are cut by imageNet's buffer."""
    folder = cnnx.write_package(bundles("bgr"), consumer="jetson-inference", out=tmp_path / "package").folder
    expected = [name.encode()[:480].decode("utf-8", "ignore") for name in NAMES]
    assert class_labels(folder / "labels.txt") == expected
