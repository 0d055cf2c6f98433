"""Names, sizes and free space are checked before any step or download starts."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import onnx
import pytest
from PIL import Image

import cnnx
from cnnx.errors import (
    CnnxError,
    ImageError,
    MissingExtra,
    RecipeError,
    UsageError,
    WeightsError,
    WriteFailed,
)
from cnnx.resources import shared_folder
from tests.doubles.web import serving
from tests.inputs.tiny import tiny_graph

pytest.importorskip("torch", reason="exports need PyTorch")


@pytest.fixture
def server():
    """A server of weights on this machine; `requests` counts."""
    counted = SimpleNamespace(requests=0, url="")

    def answer(handler):
        counted.requests += 1
        handler.send_error(404)

    with serving(answer) as address:
        counted.url = f"{address}/net-00000000.safetensors"
        yield counted


@pytest.fixture
def home(tmp_path, monkeypatch, server):
    """A folder with a recipe whose weights are to be downloaded, images, and an ONNX file of batch 1."""
    text = (shared_folder("recipes") / "lenet5.toml").read_text()
    shutil.copytree(shared_folder("recipes") / "labels", tmp_path / "labels")
    weights = f'file = "net-00000000.safetensors"\nurl = "{server.url}"'
    text = text.replace('file = "lenet5-49c7ab0d.safetensors"', weights)
    (tmp_path / "net.toml").write_text(text)
    (tmp_path / "names.toml").write_text(text.replace("labels/digits.txt", "labels/absent.txt"))
    (tmp_path / "gone.toml").write_text(text.replace('data = "digits"', 'data = "gone"'))
    (tmp_path / "unknown.toml").write_text(text.replace('definition = "lenet5"', 'definition = "lenet6"'))
    (tmp_path / "code.toml").write_text(text.replace('definition = "lenet5"', 'definition = "gone.py:net"'))
    (tmp_path / "http.toml").write_text(
        text.replace(server.url, "http://example.org/net-00000000.safetensors")
    )
    (tmp_path / "bare.toml").write_text(text.replace(f'url = "{server.url}"', ""))
    onnx.save(tiny_graph(), tmp_path / "tiny.onnx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.new("L", (40, 40), 60 * index).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "list.txt").write_text("absent.png\n")
    (tmp_path / "labels.csv").write_text("absent.png,3\n")
    (tmp_path / "file").write_text("a file\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(verb, server, *arguments, error, match, **options):
    """The command fails before it runs a step or downloads anything."""
    events = []
    with pytest.raises(error, match=match) as raised:
        verb(*arguments, **options, listener=events.append)
    assert type(raised.value) is error and raised.value.hint, raised.value
    assert [event for event in events if not event.note] == [] and server.requests == 0


DATA = [
    ({"calibration_data": "nowhere"}, ImageError, "no folder, list or built-in set"),
    ({"calibration_data": "empty"}, ImageError, "contains no images"),
    ({"calibration_data": "list.txt"}, ImageError, "not in the set"),
    (
        {"calibration_data": "images", "method": "auto", "calibration_images": 0},
        UsageError,
        "images 0: expected at least 1",
    ),
    ({"weights": "nowhere.pth"}, WeightsError, "does not exist"),
    ({"method": "entropi"}, UsageError, "entropi"),
]
SAME = {"calibration_data": "images", "validation_data": "images"}
EXPORT = [
    *DATA,
    ({"validation_data": "nowhere"}, ImageError, "no folder, list or built-in set"),
    ({"validation_data": "empty"}, ImageError, "contains no images"),
    ({"validation_data": "images", "labels": "nowhere.csv"}, ImageError, "cannot be read"),
    ({"validation_data": "images", "labels": "labels.csv"}, ImageError, "not in the set"),
    ({"labels": "labels.csv"}, UsageError, "does not take labels"),
    (SAME, ImageError, "all 3 are used for validation"),
    ({**SAME, "repair": True, "validation_images": 2}, UsageError, "selection: 1, at least 2"),
    ({"out": "file/bundle"}, WriteFailed, "a file exists where"),
    ({"out": "/proc/nowhere/bundle"}, WriteFailed, "no file can be created there"),
    ({"scales": "fp8"}, UsageError, "fp8"),
    ({"batch": (4, 2)}, UsageError, r"invalid --batch 4\.\.2"),
    ({"repair_trials": 5}, UsageError, "--repair-trials"),
    ({"repair": True, "repair_trials": 0}, UsageError, "invalid --repair-trials 0"),
    ({"target": "ort", "sm": [86]}, UsageError, "no engine|builds|GPU"),
    ({"target": "nonsense"}, UsageError, "nonsense"),
    (
        {"validation_images": 90_000, "validation_data": "deadleaves", "batch": (0, 1)},
        UsageError,
        r"invalid --batch 0\.\.1",
    ),
]


@pytest.mark.parametrize(("options", "error", "match"), EXPORT)
def test_export_refuses_before_any_work(home, server, options, error, match):
    refused(cnnx.export, server, "net.toml", precision="int8", error=error, match=match, **options)
    assert not (home / "lenet5-int8").exists()


@pytest.mark.parametrize(("options", "error", "match"), [*DATA, ({"folds": 4}, UsageError, "4 folds")])
def test_calibrate_refuses_before_any_work(home, server, options, error, match):
    few = {"calibration_data": "images"} if "folds" in options else {}
    refused(cnnx.calibrate, server, "net.toml", error=error, match=match, **few, **options)


@pytest.mark.parametrize(
    ("recipe", "error", "match"),
    [
        ("names.toml", RecipeError, "labels file does not exist"),
        ("gone.toml", ImageError, "'gone'"),
        ("unknown.toml", RecipeError, "lenet6"),
        ("code.toml", RecipeError, "model.definition does not exist"),
        ("http.toml", RecipeError, "https"),
        ("bare.toml", WeightsError, "not on this machine"),
    ],
)
def test_a_recipe_that_names_what_is_not_there_is_refused_before_any_work(home, server, recipe, error, match):
    for verb in (cnnx.export, cnnx.calibrate):
        refused(verb, server, recipe, error=error, match=match, trust_recipe=True)


def test_an_onnx_file_of_another_batch_or_with_weights_is_refused_before_any_work(home, server):
    for options, match in (({"batch": (4, 4)}, "fixed at 1"), ({"weights": "standin"}, "its own weights")):
        refused(cnnx.export, server, "tiny.onnx", error=UsageError, match=match, **options)


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_a_missing_extra_is_refused_before_the_download(home, server, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for verb in (cnnx.export, cnnx.calibrate):
        refused(verb, server, "net.toml", error=MissingExtra, match=package)


def test_an_unwritable_cache_is_refused_before_any_work(home, server, monkeypatch):
    bundle = cnnx.export("tiny.onnx", precision="fp32", validation_images=4, out="bundle").bundle.path
    monkeypatch.setenv("CNNX_CACHE", str(home / "file"))
    for verb, what in ((cnnx.export, "net.toml"), (cnnx.calibrate, "net.toml")):
        refused(verb, server, what, error=WriteFailed, match="a file exists where")
    refused(cnnx.survey, server, ["net.toml"], error=WriteFailed, match="a file exists", out="survey")
    refused(cnnx.prove, server, "p.tar.gz", error=WriteFailed, match="a file exists", bundles=[bundle])


def test_a_survey_refuses_missing_images_before_any_work(home, server):
    refused(cnnx.survey, server, ["lenet5", "gone.toml"], error=ImageError, match="'gone'", out="survey")
    assert not (home / "survey").exists()


def test_diagnose_refuses_before_any_work(home, server):
    made = cnnx.export("lenet5", precision="int8", calibration_images=8, validation_images=8, out="bundle")
    bundle = made.bundle.path
    for options, error, match in DATA[:3]:
        refused(cnnx.diagnose, server, bundle, error=error, match=match, **options)
    for options, error in (({"weights": "nowhere.pth"}, WeightsError), ({"model": "nowhere"}, RecipeError)):
        refused(cnnx.diagnose, server, bundle, error=error, match="does not exist|no such file", **options)


def test_too_little_free_space_is_refused_before_any_work(home, server, monkeypatch):
    """Estimated: 61,706 weights of 4 bytes, downloaded, exported and equalized; 512 + 800 digits of 1 kB."""
    usage, disk_usage = shutil.disk_usage(home), "shutil.disk_usage"
    monkeypatch.setenv("CNNX_CACHE", str(home / "cache"))
    few = {"calibration_images": 8, "validation_images": 8}
    with monkeypatch.context() as full:
        full.setattr(disk_usage, lambda _: usage._replace(free=1_000_000))
        match = r"for the cache and the bundle: about \d+ MB needed, 1 MB free"
        refused(cnnx.export, server, "net.toml", error=WriteFailed, match=match)
        match = r"for the cache: about \d+ MB needed, 1 MB free"
        refused(cnnx.calibrate, server, "net.toml", error=WriteFailed, match=match)
    # Files of the first run are reused, so a disk that is full by now does not matter.
    first = cnnx.export("lenet5", out="bundle", **few)
    monkeypatch.setattr(disk_usage, lambda _: usage._replace(free=1_000))
    again = cnnx.export("lenet5", out="bundle", **few)
    assert again.unchanged and again.bundle.manifest.fingerprint == first.bundle.manifest.fingerprint


def test_nothing_that_could_be_done_is_refused(home):
    """Just enough images: of three, one validates, one selects, one calibrates."""
    with pytest.raises(CnnxError) as raised:
        cnnx.export("tiny.onnx", precision="int8", method="auto", **SAME, validation_images=3, out="a")
    assert "selection: 1," in str(raised.value) or "selection: 0," in str(raised.value)
    done = cnnx.export("tiny.onnx", precision="int8", method="auto", **SAME, validation_images=1, out="b")
    assert len(done.candidates) > 1
