"""Preprocessing stated by options, and verdicts under assumed preprocessing."""

import dataclasses
import importlib.util
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnx
from cnnx.errors import UsageError
from cnnx.options.networks import CalibrateOptions, ExportOptions
from cnnx.pipeline.export.options import with_options
from cnnx.pipeline.export.preprocessing import assumption
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.presets import assumed
from cnnx.recipe import InputSpec, ModelSpec, Recipe
from tests.inputs.tiny import FEW

ASSUMED = Recipe("x", ModelSpec("x.onnx", 10), preprocessing=assumed((3, 224, 224)))
GRAY = dataclasses.replace(ASSUMED, input=InputSpec(shape=(1, 32, 32)), preprocessing=assumed((1, 32, 32)))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"mean": "0.5", "std": [0.25]}, {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
        ({"mean": "0.1,0.2,0.3"}, {"mean": (0.1, 0.2, 0.3)}),
        ({"resize": 232}, {"resize": 232}),
        ({"resize": "256x240"}, {"resize": (256, 240), "fit": "squash"}),
        ({"resize": "longer:224"}, {"resize": 224, "fit": "longer"}),
        ({"resize": "letterbox"}, {"resize": (224, 224), "fit": "letterbox"}),
        ({"resize": "none"}, {"resize": None, "fit": "none"}),
        ({"crop": 0.9}, {"resize": 248}),
        ({"color": "bgr"}, {"color": "bgr"}),
        ({"preprocessing": "timm", "crop": 1.0}, {"interpolation": "bicubic", "resize": 224}),
        (
            {"preprocessing": "timm", "resize": "letterbox"},
            {"interpolation": "bicubic", "resize": (224, 224), "fit": "letterbox"},
        ),
        (
            {"preprocessing": "keras-tf", "resize": 256},
            {"divisor": 127.5, "mean": (1.0,) * 3, "std": (1.0,) * 3, "interpolation": "nearest"},
        ),
    ],
)
def test_options_state_the_preprocessing(options, changed):
    found = with_options(ASSUMED, ExportOptions(**options))
    assert found.preprocessing == dataclasses.replace(Preprocessing(), **changed)
    assert assumption(ASSUMED) and not assumption(found)
    assert with_options(ASSUMED, CalibrateOptions(**options)) == found


def test_an_option_keeps_the_recipes_other_values():
    own = Preprocessing(color="bgr", fit="letterbox", resize=(224, 224), fill=(114,), exif=True)
    recipe = dataclasses.replace(ASSUMED, preprocessing=own)
    changed = with_options(recipe, ExportOptions(std="0.5")).preprocessing
    assert changed == dataclasses.replace(own, std=(0.5,) * 3)


def test_a_timm_config_is_read_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.95, "interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
    found = with_options(ASSUMED, ExportOptions(preprocessing="config.json")).preprocessing
    assert found == Preprocessing(resize=235, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        (ASSUMED, {"mean": "a,b,c"}, ["invalid --mean 'a,b,c'", "--mean 0.5,0.5,0.5"]),
        (ASSUMED, {"mean": "123.675,116.28,103.53"}, ["--mean 123.675 is outside 0..1", "divide"]),
        (ASSUMED, {"mean": [0.5, 0.5]}, ["one value per channel: 3, not 2", "--mean"]),
        (ASSUMED, {"std": "0"}, ["std[0] should be a positive number"]),
        (ASSUMED, {"std": "inf"}, ["std[0]", "finite"]),
        (ASSUMED, {"resize": "big"}, ["invalid --resize 'big'", "letterbox"]),
        (ASSUMED, {"resize": 200}, ["crop is larger", "--resize"]),
        (ASSUMED, {"crop": 224.0}, ["invalid --crop 224", "224 x 224"]),
        (ASSUMED, {"crop": 0.9, "resize": 256}, ["--resize and --crop exclude each other"]),
        (ASSUMED, {"color": "rbg"}, ["color should be one of"]),
        (ASSUMED, {"color": "gray"}, ["--color", "give --color rgb"]),
        (ASSUMED, {"preprocessing": "tim"}, ["unknown preset 'tim'", "did you mean 'timm'?"]),
        (ASSUMED, {"preprocessing": "x.json"}, ["cannot be read", "x.json"]),
        (GRAY, {"preprocessing": "timm"}, ["--preprocessing timm", "give --preprocessing gray"]),
    ],
)
def test_what_an_option_gets_wrong_is_named(recipe, options, words):
    with pytest.raises(UsageError) as caught:
        with_options(recipe, ExportOptions(**options))
    assert caught.value.hint and all(word in str(caught.value) for word in words), str(caught.value)


def test_a_verdict_under_assumed_preprocessing_says_so_in_its_first_line(tiny, tmp_path, cnnx_command):
    out = tmp_path / "b"
    _, stdout, _ = cnnx_command("export", tiny, "--int8", *FEW, "--out", out)
    assert "under assumed preprocessing (see --preprocessing)" in stdout.splitlines()[0]
    assert "note: Preprocessing is assumed: gray; shorter side to 37" in stdout
    # Also from the bundle alone, later, and in a report.
    _, stdout, _ = cnnx_command("validate", out, "--validation-data", "digits", "--model", tiny)
    assert "under assumed preprocessing" in stdout.splitlines()[0]
    _, stdout, _ = cnnx_command("inspect", out)
    assert "assumed, not stated: gray; shorter side to 37" in stdout and "under assumed preproc" in stdout
    cnnx.write_report(out, tmp_path / "report.md")
    assert "under assumed preprocessing" in (tmp_path / "report.md").read_text()


def test_a_verdict_under_stated_preprocessing_does_not(tiny, tmp_path, cnnx_command):
    out = tmp_path / "b"
    _, stdout, _ = cnnx_command("export", tiny, "--int8", *FEW, "--out", out, "--preprocessing", "gray")
    assert "assumed" not in stdout
    stated = json.loads((out / "manifest.json").read_text())["recipe"]["preprocessing"]
    assert stated["resize"] == 36 and stated["assumed"] is False and "preset" not in stated
    _, stdout, _ = cnnx_command("inspect", out)
    assert "preprocessing" in stdout and "shorter side to 36" in stdout and "assumed" not in stdout


def test_ranges_under_assumed_preprocessing_have_a_note(tiny, cnnx_command):
    _, stdout, _ = cnnx_command("calibrate", tiny, *FEW[:4])
    assert "Preprocessing is assumed: gray" in stdout
    _, stdout, _ = cnnx_command("calibrate", tiny, *FEW[:4], "--mean", "0.5")
    assert "assumed" not in stdout


def opencv_recipe(tiny):
    file = cnnx.init(tiny, mean="0.5").file
    file.write_text(file.read_text().replace('resampling = "pillow"', 'resampling = "opencv"'))
    return file


def test_a_bundle_names_the_opencv_that_made_its_pixels(tiny, tmp_path, cnnx_command):
    cv2 = pytest.importorskip("cv2", reason="resampling as OpenCV does needs the extra opencv")
    cnnx_command("export", opencv_recipe(tiny), "--fp32", *FEW[4:], "--out", tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["versions"]["opencv"] == cv2.__version__
    _, stdout, _ = cnnx_command("inspect", tmp_path / "b")
    assert "(bilinear, OpenCV)" in stdout


def test_without_opencv_nothing_is_started(tiny, tmp_path, cnnx_command, monkeypatch):
    recipe = opencv_recipe(tiny)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else find(name))
    code, _, stderr = cnnx_command("export", recipe, "--fp32", *FEW[4:], "--out", tmp_path / "b")
    assert code == 4 and "opencv-python-headless" in stderr and "[opencv]" in stderr


@given(
    st.sampled_from(["preprocessing", "mean", "std", "resize", "color"]),
    st.text(max_size=12) | st.from_regex(r"[0-9a-z:x,.]{1,12}", fullmatch=True),
)
def test_any_text_is_taken_or_refused(option, text):
    try:
        found = with_options(ASSUMED, ExportOptions(**{option: text}))
    except UsageError as error:
        assert error.hint
    else:
        assert not found.preprocessing.assumed
