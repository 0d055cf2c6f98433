"""The C++ package through its public doors: programs, the C ABI and find_package."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnx
from cnnx.agreement import probabilities, top_k
from cnnx.bundle import Bundle
from cnnx.errors import BundleError
from cnnx.package.cpp import write
from cnnx.preprocessing import Preprocessing
from cnnx.record import Subject
from cnnx.selftest import self_test
from tests.inputs.programs import run
from tests.package.cpp.conftest import onnxruntime_library
from tests.package.cpp.linear import (
    CLASSES,
    CROP,
    NAMES,
    PREPROCESSING,
    add_engine,
    linear_bundle,
    logits_of,
    plan,
    weights,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of several sizes and modes, as PNG: decoders agree about them."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for index, (mode, size) in enumerate(
        [("RGB", (40, 30)), ("L", (31, 57)), ("RGBA", (12, 90)), ("RGB", (9, 9)), ("LA", (33, 20))]
    ):
        channels = len(Image.new(mode, (1, 1)).getbands())
        pixels = random.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        Image.fromarray(pixels.squeeze(), mode).save(folder / f"{index}.png")
    return folder


def classify(program, bundle, *images, code=0, **options):
    """The JSON object of cnnx_classify."""
    done = program("cnnx_classify", "--json", bundle, *images, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_trained_network_gives_what_python_gives(built, tmp_path):
    pytest.importorskip("torch", reason="exports need PyTorch")
    bundle = cnnx.export("lenet5", precision="int8", out=tmp_path / "lenet5").bundle.path
    digits = np.load(Path(__file__).parents[3] / "calibration" / "digits" / "digits.npz")["pixels"]
    images = []
    for index, size in enumerate([28, 32, 64, 100, 17]):
        images.append(tmp_path / f"{index}.png")
        Image.fromarray(digits[index]).resize((size, size + 5 * index)).save(images[-1])
    environment = {**os.environ, "CNNX_ONNXRUNTIME": str(onnxruntime_library())}
    command = [built.plain / "cnnx_classify", "--json", "--self-test", bundle, *images]
    result = json.loads(run(*command, env=environment).stdout)["result"]
    with cnnx.load(bundle, target="ort") as net:
        expected = net.predict(images)
        logits = net.predict_crops(Bundle.open(bundle).reference().crops).logits
    assert result["runtime"] == f"onnxruntime {net.subject.runtime.split()[-1]}"
    for one, guesses in zip(result["images"], expected.top(5), strict=True):
        assert [(c["index"], c["name"]) for c in one["classes"]] == [(g.index, g.name) for g in guesses]
        assert [c["probability"] for c in one["classes"]] == pytest.approx(
            [g.probability for g in guesses], abs=1e-9
        )
    assert_same_test(result["self_test"], judged(Bundle.open(bundle), logits))


def judged(bundle, logits):
    """Python's self-test of logits."""
    reference, engine = bundle.reference(), np.asarray(logits, np.float32)
    subject = Subject("net", "int8", "graph", "0" * 64, "ort 1", "CPU", "cpu")
    return self_test(
        reference.graph,
        engine,
        original=reference.original,
        precision=bundle.manifest.precision,
        subject=subject,
        ids=reference.ids,
        image_set="x",
    )


def assert_same_test(found, expected):
    assert (found["verdict"], found["images"]) == (expected.verdict.value, expected.images)
    assert found["nonfinite"] == expected.nonfinite
    assert len(found["checks"]) == len(expected.checks)
    for ours, theirs in zip(found["checks"], expected.checks, strict=True):
        assert (ours["name"], ours["unit"], ours["at_least"]) == (theirs.name, theirs.unit, theirs.at_least)
        assert ours["verdict"] == theirs.verdict.value
        assert (ours["value"], ours["limit"]) == pytest.approx(
            (theirs.value, theirs.limit), rel=1e-3, abs=1e-2
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("images", [5, 40, 120])
def test_the_self_test_judges_as_python_does(program, tmp_path, precision, images):
    bundle = linear_bundle(tmp_path / "b", precision=precision, images=images)
    opened = Bundle.open(bundle)
    matrix, bias = weights(360)
    random = np.random.default_rng(images)
    faults = {
        "sound": (matrix * np.float32(1 + 2e-5), bias),
        "noise": ((matrix + random.normal(size=matrix.shape) * 0.004).astype(np.float32), bias),
        "scaled": (matrix * np.float32(1.01), bias),
        "bias": (matrix, bias + np.float32(0.02)),
        "not finite": (matrix, np.where(np.arange(CLASSES) == 3, np.float32("nan"), bias)),
    }
    crops = opened.reference().crops
    with cnnx.load(bundle, target="ort") as net:
        inputs = cnnx.data.normalize.normalize(crops, net._recipe.preprocessing)
    verdicts = set()
    for name, (changed, moved) in faults.items():
        identity = add_engine(bundle, plan(matrix=changed, bias=moved), name.replace(" ", "-"))
        result = classify(
            program,
            bundle,
            "--self-test",
            "--engine",
            identity,
            code=None or _code(opened, inputs, changed, moved),
        )
        expected = judged(opened, logits_of(inputs, changed, moved))
        assert_same_test(result["result"]["self_test"], expected)
        verdicts.add(expected.verdict.value)
    assert len(verdicts) > 1


def _code(opened, inputs, matrix, bias):
    return judged(opened, logits_of(inputs, matrix, bias)).verdict.exit_code


FORMATS = [
    "uint8-nhwc",
    "uint8-nchw-gray",
    "uint8-nhwc-gray:20x24",
    "uint8-nhwc-bgr",
    "uint8-nchw-rgb",
    "uint8-nchw-bgr",
    "uint8-nhwc-rgb:20x24",
    "uint8-nchw-bgr:20x24",
]


@pytest.mark.parametrize("form", FORMATS)
def test_graphs_that_take_pixels(program, tmp_path, form):
    """The self-test holds the logits to this test's own arithmetic: a wrong order of channels fails it."""
    gray = {"color": "gray", "mean": (0.5,), "std": (0.5,)} if "gray" in form else {}
    squash = {"resize": CROP, "fit": "squash"} if ":" in form else {}
    bundle = linear_bundle(tmp_path / "b", dataclasses.replace(PREPROCESSING, **gray, **squash), form)
    channels = 1 if gray else 3
    frame = np.random.default_rng(0).integers(0, 256, (20, 24, channels), dtype=np.uint8)
    Image.fromarray(frame.squeeze()).save(tmp_path / "frame.png")
    result = classify(program, bundle, "--self-test", tmp_path / "frame.png")["result"]
    assert result["self_test"]["verdict"] == "passed"
    assert result["self_test"]["checks"][0]["value"] > 100
    if ":" not in form:
        return
    crop = frame[::2, ::2]
    order = crop[..., ::-1] if "bgr" in form else crop
    matrix, bias = weights(120 * channels)
    pixels = order.transpose(2, 0, 1) if "nchw" in form else order
    expected = probabilities(logits_of(pixels[None], matrix, bias))[0]
    assert [guess["probability"] for guess in result["images"][0]["classes"]] == pytest.approx(
        sorted(expected, reverse=True)[:5], abs=1e-6
    )
    frame_of_another_size = tmp_path / "small.png"
    Image.fromarray(frame[:19].squeeze()).save(frame_of_another_size)
    found = classify(program, bundle, frame_of_another_size, code=3)["result"]["images"][0]
    assert found["error"]["what"] == "the network takes frames of 24 x 20 pixels, not 24 x 19"


def test_gray_networks_and_ties(program, tmp_path, photos):
    """Equal logits are ordered by class index, and gray is computed as Pillow computes it."""
    preprocessing = Preprocessing(color="gray", resize=12, mean=(0.5,), std=(0.25,))
    matrix, bias = weights(120)
    matrix[2:5], bias[2:5] = matrix[2], 3
    bundle = linear_bundle(tmp_path / "b", preprocessing)
    content = plan("input input float 4 -1 1 10 12", matrix=matrix, bias=bias)
    add_engine(bundle, content)
    images = sorted(photos.iterdir())
    found = classify(program, bundle, "--top", 9, *images)["result"]
    assert found["runtime"] == "tensorrt 10.3.0" and found["engine"] == "tensorrt-10.3.0-sm87"
    with cnnx.load(bundle, target="ort") as net:
        crops = np.stack([net.crop(image) for image in images])
    logits = logits_of(cnnx.data.normalize.normalize(crops, preprocessing), matrix, bias)
    for one, best in zip(found["images"], top_k(logits, CLASSES).tolist(), strict=True):
        assert [guess["index"] for guess in one["classes"]] == best
        assert [guess["name"] for guess in one["classes"]] == [NAMES[index] for index in best]


def test_the_package_holds_the_bundle_and_its_current_engines(tmp_path):
    bundle = linear_bundle(tmp_path / "b", images=8)
    (tmp_path / "graph").mkdir()
    assert "no TensorRT engine" in write(Bundle.open(bundle), tmp_path / "graph")[-1]
    add_engine(bundle, plan(), "current")
    add_engine(bundle, plan(), "stale", graph_digest="0" * 64)
    (bundle / "runs").mkdir()
    (tmp_path / "engine").mkdir()
    assert not any("no TensorRT engine" in note for note in write(Bundle.open(bundle), tmp_path / "engine"))
    copied = Bundle.open(tmp_path / "engine" / "bundle")
    assert [engine.identity for engine in copied.engines()] == ["current"]
    assert not copied.stale_engines() and not (copied.path / "runs").exists()
    (bundle / "labels.txt").write_text("changed")
    (tmp_path / "damaged").mkdir()
    with pytest.raises(BundleError, match=r"labels\.txt was modified"):
        write(Bundle.open(bundle, verify=False), tmp_path / "damaged")


REFUSED = {
    "preprocessing.interpolation is 'lanczos'": {"interpolation": "lanczos"},
    "preprocessing.resampling is 'opencv'": {"resampling": "opencv"},
    "preprocessing.exif is true": {"exif": True},
}


@pytest.mark.parametrize("what", REFUSED)
def test_preprocessing_that_is_not_covered_is_refused_by_name(program, tmp_path, what):
    bundle = linear_bundle(tmp_path / "b", dataclasses.replace(Preprocessing(resize=14), **REFUSED[what]))
    error = classify(program, bundle, "x.png", code=3)["error"]
    assert error["what"].startswith(f"recipe.{what}, which this program does not cover")
    assert error["where"] == str(bundle / "manifest.json") and error["hint"]
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match=what.split(".")[1].split(" ")[0]):
        write(Bundle.open(bundle), tmp_path / "out")


@pytest.mark.parametrize(
    ("what", "recipe", "changes"),
    [
        ("the key recipe.input.tiles is not known", {"input": {"shape": [3, 10, 12], "tiles": 4}}, {}),
        (
            "recipe.input.format is 'float16-nchw'",
            {"input": {"shape": [3, 10, 12], "format": "float16-nchw"}},
            {},
        ),
        ("classes should be an integer from 2", None, {"classes": 1}),
        ("labels.txt has 7 lines, but the network has 8 classes", None, {"classes": 8}),
    ],
)
def test_manifests_that_state_what_is_not_known(program, tmp_path, what, recipe, changes):
    bundle = linear_bundle(tmp_path / "b", recipe=recipe, **changes)
    assert what in classify(program, bundle, "x.png", code=3)["error"]["what"]


MISFITS = {
    "TensorRT 10.3.0, but this machine has TensorRT 10.3.1": ({"VERSION": "10.3.1"}, {}),
    "sm86, but this machine has sm87": ({}, {"target": "sm86"}),
    "sm80 or newer, but this machine has sm75": ({"SM": "75"}, {"reach": "ampere_plus"}),
    "TensorRT 10.3.0 or newer, but this machine has TensorRT 10.2.9": (
        {"VERSION": "10.2.9"},
        {"version_compatible": True},
    ),
}


def test_an_engine_is_loaded_only_where_it_fits(program, tmp_path, photos):
    image = photos / "0.png"
    for index, (what, (machine, engine)) in enumerate(MISFITS.items()):
        bundle = linear_bundle(tmp_path / str(index))
        add_engine(bundle, b"never loaded", **engine)
        error = classify(program, bundle, image, code=3, **machine)["error"]
        assert error["what"] == f"the engine needs {what}"
        assert error["hint"].startswith("build it on this machine: cnnx build")

    bundle = linear_bundle(tmp_path / "several")
    add_engine(bundle, plan(), "a-old", runtime_version="10.2.0", version_compatible=True)
    add_engine(bundle, plan(), "b-ampere", reach="ampere_plus", target="sm80")
    add_engine(bundle, plan(), "c-best", target="sm87")
    add_engine(bundle, plan(), "d-rtx", runtime="rtx")
    add_engine(bundle, plan(), "e-stale", graph_digest="0" * 64)
    assert classify(program, bundle, image)["result"]["engine"] == "c-best"
    older = classify(program, bundle, "--engine", "a-old", image, code=3)["error"]["what"]
    assert older == "engine.json states TensorRT 10.2.0, but the plan was written by TensorRT 10.3.0"
    assert classify(program, bundle, "--engine", "b-ampere", image)["result"]["engine"] == "b-ampere"
    for other in ("d-rtx", "e-stale", "no"):
        error = classify(program, bundle, "--engine", other, image, code=2)["error"]
        assert error["what"] == f"the bundle has no TensorRT engine '{other}'"
    # Without a GPU, "auto" runs the graph.
    on_cpu = classify(program, bundle, image, fails="cudaGetDeviceCount")["result"]
    assert on_cpu["runtime"].startswith("onnxruntime") and on_cpu["engine"] == ""


PLANS = {
    "engine.json states TensorRT 10.3.0, but the plan was written by TensorRT 10.4.0": {
        "release": (10, 4, 0, 1)
    },
    "the plan was written by TensorRT for RTX 10.3.0": {"product": b"vtrt"},
    "it has an input 'image', which the bundle": {"inputs": "input image float 4 -1 3 10 12"},
    "its input has another type": {"inputs": "input input uint8 4 -1 3 10 12"},
    "its input has another shape": {"inputs": "input input float 4 -1 3 12 10"},
    "its batch is not known": {"batch": (9, 2)},
    "it has no input 'input'": {"inputs": "output other float 2 -1 3"},
    "its logits have another type": {"outputs": "output logits float 2 -1 8"},
    "it has no output 'logits'": {"outputs": "output scores float 2 -1 7"},
    "output 'aux' has a shape that depends on the data": {"extra": "output aux float 2 -1 -1"},
    "TensorRT refuses the engine: deserializeCudaEngine: the plan is not one": {"product": b"junk"},
}


def test_engines_that_do_not_fit_their_bundle(program, tmp_path, photos):
    for index, (what, changes) in enumerate(PLANS.items()):
        bundle = linear_bundle(tmp_path / str(index), images=8)
        add_engine(bundle, plan(**changes))
        assert what in classify(program, bundle, photos / "0.png", code=3)["error"]["what"]
    engine = next(bundle.glob("engines/*/model.engine"))
    engine.write_bytes(engine.read_bytes()[:-1])
    assert "was modified: its SHA-256" in classify(program, bundle, photos / "0.png", code=3)["error"]["what"]


def test_every_call_of_tensorrt_and_cuda_may_fail(program, tmp_path, photos):
    bundle = linear_bundle(tmp_path / "b", images=8)
    add_engine(bundle, plan())
    for call, code in {
        "cudaGetDeviceCount": 4,
        "cudaMalloc": 4,
        "cudaStreamCreateWithFlags": 4,
        "cudaStreamSynchronize": 4,
        "createInferRuntime": 4,
        "deserializeCudaEngine": 3,
        "createExecutionContext": 4,
        "enqueueV3": 4,
    }.items():
        result = classify(
            program, bundle, "--runtime", "tensorrt", "--self-test", photos / "0.png", code=code, fails=call
        )
        assert result["error"]["what"] and result["error"]["hint"] and result["exit_code"] == code


def test_the_c_abi_from_c_with_buffers_and_a_stream_of_the_caller(program, tmp_path, photos):
    bundle = linear_bundle(tmp_path / "b")
    add_engine(bundle, plan())
    done = program("abi", bundle, photos / "0.png")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_words_of_the_command_line(program, tmp_path, photos):
    bundle, image = linear_bundle(tmp_path / "b", images=8), photos / "0.png"
    for arguments in (
        [],
        [bundle],
        ["--no", bundle, image],
        ["--top", "0", bundle, image],
        [bundle, "--top"],
    ):
        done = program("cnnx_classify", *arguments)
        assert done.returncode == 2 and "usage: cnnx_classify" in done.stderr
    assert classify(program, bundle, "--runtime", "cuda", image, code=2)["error"]["hint"]
    assert classify(program, tmp_path / "none", image, code=3)["error"]["what"] == "the folder does not exist"
    missing = classify(program, bundle, "--library", tmp_path / "lib.so", image, code=4)["error"]
    assert missing["what"].startswith("ONNX Runtime's library cannot be loaded")
    wrong = classify(program, bundle, "--library", "libm.so.6", image, code=4)["error"]
    assert wrong["what"].startswith("the library is not ONNX Runtime")
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:100])
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(deep)
    both = classify(program, bundle, tmp_path / "broken.png", image, deep)["result"]["images"]
    assert both[0]["error"]["what"].startswith("cannot be decoded") and len(both[1]["classes"]) == 5
    assert both[2]["error"]["what"] == "has samples of more than 8 bits"
    assert classify(program, bundle, deep, code=3)["result"]["images"][0]["classes"] == []
    shown = program("cnnx_classify", "--top", "2", bundle, image).stdout.splitlines()
    assert len(shown) == 4 and shown[1] == str(image) and shown[2].split()[1] in " ".join(NAMES)
    with (bundle / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    damaged = classify(program, bundle, image, code=3)["error"]["what"]
    assert damaged.startswith("model.onnx was modified: its SHA-256 is")


def test_from_an_empty_folder_to_a_classified_image(built, tmp_path, photos):
    """The example, within the promised sizes, on an installed library and on one in its build folder."""
    example = built.package / "example"
    assert len((example / "CMakeLists.txt").read_text().splitlines()) <= 10
    assert len((example / "main.cpp").read_text().splitlines()) <= 25
    environment = {**os.environ, "CNNX_ONNXRUNTIME": str(onnxruntime_library())}
    printed = set()
    for name, definition in {
        "installed": f"CMAKE_PREFIX_PATH={built.installed}",
        "build": f"cnnx_DIR={built.plain}",
    }.items():
        run("cmake", "-G", "Ninja", "-S", example, "-B", tmp_path / name, f"-D{definition}")
        run("ninja", "-C", tmp_path / name)
        done = run(tmp_path / name / "example", built.package / "bundle", photos / "0.png", env=environment)
        printed.add(done.stdout)
    [lines] = printed
    assert len(lines.splitlines()) == 5 and all(line.split("  ")[1] in NAMES for line in lines.splitlines())


def test_the_library_needs_and_shows_no_more_than_it_should(built):
    def needs(library):
        listed = run("readelf", "-d", library).stdout.splitlines()
        return {line.split("[")[1].split(".so")[0] for line in listed if "NEEDED" in line}

    system = {"libstdc++", "libm", "libgcc_s", "libc", "libdl", "ld-linux-x86-64", "ld-linux-aarch64"}
    assert needs(built.plain / "libcnnx.so") <= system
    sanitizers = {"libasan", "libubsan"}
    assert needs(built.sanitized / "package/libcnnx.so") - system - sanitizers == {"libnvinfer", "libcudart"}
    symbols = run("nm", "-D", "--defined-only", built.plain / "libcnnx.so").stdout.splitlines()
    strong = {line.split()[-1] for line in symbols if line.split()[-2] in "TDB"}
    assert strong and all(name.startswith("cnnx_") for name in strong)
    header = (built.package / "include" / "cnnx.h").read_text()
    assert strong == {name for name in strong if f" {name}(" in header or f"*{name}(" in header}
    readme = (built.package / "README.md").read_text().splitlines()
    assert len(readme) <= 40 and readme[0] == "# linear in C++"


def test_clang_tidy_finds_nothing(built):
    if shutil.which("clang-tidy") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs clang-tidy")
    files = sorted(map(str, (built.package / "src").glob("*.cpp")))
    command = ["xargs", "-P2", "-n3", "clang-tidy", "--quiet", "-p", str(built.sanitized)]
    done = subprocess.run(command, input="\n".join(files), capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout
