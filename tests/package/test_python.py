"""The single Python file: the same classes as cnnx, on ONNX Runtime and on an imitation of TensorRT."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cnnx
from cnnx.data.geometry import crop
from cnnx.preprocessing import Preprocessing, contradiction
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from tests.doubles.host_cuda import HostCuda
from tests.doubles.imitated_trt import ImitatedBindings

FEW = {"calibration_images": 32, "validation_images": 32}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Packages of one network that takes floats, BGR pixels, and frames; by their format."""
    made, folder = {}, tmp_path_factory.mktemp("packages")
    for name, form in {"floats": None, "pixels": "uint8-nhwc-bgr", "frames": "uint8-nchw:96x128"}.items():
        bundle = cnnx.export(
            "small-mobilenet",
            precision="int8",
            out=folder / f"{name}-bundle",
            batch=(1, 4),
            input=form,
            **FEW,
        ).bundle
        made[name] = cnnx.write_package(bundle.path, consumer="python", out=folder / name).folder, bundle
    return made


def script(folder):
    spec = importlib.util.spec_from_file_location("classify", folder / "classify.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def photos():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(5)]


@pytest.mark.parametrize("name", ["floats", "pixels"])
def test_the_file_gives_the_classes_that_cnnx_gives(packages, photos, name):
    folder, bundle = packages[name]
    net = script(folder).Classifier()
    with cnnx.load(bundle.path) as expected:
        crops = np.stack([expected.crop(photo) for photo in photos])
        assert np.array_equal(np.stack([net.crop(photo) for photo in photos]), crops)
        found = expected.predict(photos)
        assert np.array_equal(net.logits(crops), found.logits)
        for ours, theirs in zip(net.classify(photos), found.top(), strict=True):
            assert [each for each, _ in ours] == [guess.name for guess in theirs]
            assert [p for _, p in ours] == pytest.approx([guess.probability for guess in theirs])
    assert net.self_test() == (32, 0, 0.0)


def test_a_graph_that_resizes_gets_whole_frames(packages):
    folder, bundle = packages["frames"]
    frame = np.random.default_rng(1).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    net, small = script(folder).Classifier(), frame[:50]
    assert net.self_test() == (32, 0, 0.0)
    with cnnx.load(bundle.path) as expected:
        assert np.array_equal(net.logits(net.crop(frame)[None]), expected.predict(frame).logits)
    with pytest.raises(Exception, match="takes images of 128 x 96"):
        net.crop(small)


def test_the_command_works_where_cnnx_is_not_installed(packages, photos, tmp_path):
    folder, bundle = packages["floats"]
    Image.fromarray(photos[0]).save(tmp_path / "photo.png")
    hidden = "import sys; sys.modules['cnnx'] = None; sys.argv = sys.argv[1:]; import runpy; "
    run = [sys.executable, "-c", f"{hidden}runpy.run_path(sys.argv[0], run_name='__main__')"]
    done = subprocess.run(
        [*run, folder / "classify.py", tmp_path / "photo.png", "--self-test", "--top", "2"],
        capture_output=True,
        text=True,
        check=True,
    )
    with cnnx.load(bundle.path) as net:
        [best] = net.predict(photos[0]).top(2)
    lines = done.stdout.splitlines()
    assert lines[0] == "32 images: 0 top classes differ, the largest divergence is 0 nats"
    assert [line.split(maxsplit=1)[1] for line in lines[2:]] == [guess.name for guess in best]
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    deep = subprocess.run(
        [*run, folder / "classify.py", tmp_path / "deep.png"], capture_output=True, text=True
    )
    assert deep.returncode == 3 and "more than 8 bits" in deep.stderr
    shutil.copytree(folder, tmp_path / "edited")
    manifest = tmp_path / "edited" / "bundle" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"divisor": 255.0', '"divisor": 200.0'))
    edited = subprocess.run(
        [*run, tmp_path / "edited" / "classify.py", "--self-test"], capture_output=True, text=True
    )
    assert edited.returncode == 3 and "was modified after it was written" in edited.stderr
    (tmp_path / "broken.png").write_text("no image")
    refused = subprocess.run(
        [sys.executable, folder / "classify.py", tmp_path / "broken.png"], capture_output=True, text=True
    )
    assert refused.returncode == 3 and refused.stderr.startswith("error: ")


def cuda_python(cuda: HostCuda) -> types.SimpleNamespace:
    """cuda-python's `cuda.bindings.runtime` over the host: each call returns a tuple, the error first."""
    pointer = ctypes.c_void_p

    def making(function):
        def make(*sizes):
            made = pointer()
            cuda.call(function, ctypes.byref(made), *sizes)
            return 0, made.value

        return make

    def copy(to, source, size, kind, stream):
        cuda.call("cudaMemcpyAsync", pointer(to), pointer(source), size, kind, pointer(stream))
        return (0,)

    def synchronize(stream):
        cuda.call("cudaStreamSynchronize", pointer(stream))
        return (0,)

    return types.SimpleNamespace(
        cudaMemcpyKind=types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2),
        cudaStreamCreate=making("cudaStreamCreate"),
        cudaMalloc=making("cudaMalloc"),
        cudaMemcpyAsync=copy,
        cudaStreamSynchronize=synchronize,
    )


def test_an_engine_runs_through_tensorrt_and_cuda_python(packages, photos, tmp_path, monkeypatch):
    source = tmp_path / "bundle"
    shutil.copytree(packages["floats"][1].path, source)
    bindings = ImitatedBindings("11.4.0.106")
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(bindings))
    [engine] = cnnx.build(source, target="tensorrt").engines
    folder = cnnx.write_package(source, consumer="python", out=tmp_path / "package").folder
    with cnnx.load(source) as net:
        assert net.subject.runtime == "tensorrt 11.4.0.106"
        expected = net.predict(photos).logits
        crops = np.stack([net.crop(photo) for photo in photos])
    module = bindings.loaded.trt
    module.Logger = lambda severity: bindings.loaded.log
    module.Logger.ERROR = 1
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    cuda = types.SimpleNamespace(runtime=cuda_python(bindings.device))
    monkeypatch.setitem(sys.modules, "cuda.bindings", cuda)
    net = script(folder).Classifier(runtime="tensorrt")
    assert np.allclose(net.logits(crops), expected)
    module.__version__ = "11.5.0"
    with pytest.raises(Exception, match=r"no engine fits .* needs TensorRT 11.4.0.106, not 11.5.0"):
        script(folder).Classifier(runtime="tensorrt")
    plan = folder / "bundle" / "engines" / engine.identity / engine.file
    plan.write_bytes(plan.read_bytes() + b"x")
    with pytest.raises(Exception, match="is damaged: its SHA-256"):
        script(folder).Classifier()


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["shorter", "longer", "letterbox", "squash", "none"]),
    st.one_of(st.integers(20, 40), st.tuples(st.integers(20, 40), st.integers(24, 40))),
    st.sampled_from(["bilinear", "bicubic", "nearest", "lanczos", "box"]),
    st.sampled_from(["rgb", "bgr", "gray"]),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_crops_are_those_of_cnnx_for_every_fit(fit, resize, interpolation, color, size):
    from cnnx.package.python import _PROGRAM

    shape = (1 if color == "gray" else 3, 20, 24)
    values = (0.5,) * shape[0]
    stated = Preprocessing(
        color,
        None if fit == "none" else resize,
        interpolation,
        values,
        values,
        fit=fit,
        fill=tuple(range(shape[0])),
    )
    if contradiction(stated, shape):
        return
    loaded = script(_PROGRAM)
    net = object.__new__(loaded.Classifier)
    net.preprocessing = json.loads(json.dumps({**stated.as_key()}))
    net.shape, net.format = shape, "float32-nchw"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8))
    assert np.array_equal(net.crop(image), crop(image, stated, shape))
