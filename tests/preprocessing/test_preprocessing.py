"""The keys of a preprocessing table, their short forms, and their description."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.errors import RecipeError
from cnnx.preprocessing import Preprocessing, contradiction
from cnnx.preprocessing.presets import PRESETS, assumed
from cnnx.preprocessing.words import described
from cnnx.recipe import parse_recipe, recipe_from_dict

WHERE = Path("folder/mine.toml")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def read(table, shape=(3, 224, 224), where=WHERE):
    data = {"name": "x", "model": {"definition": "x", "classes": 2}, "input": {"shape": shape}}
    return recipe_from_dict({**data, "preprocessing": table}, where=where).preprocessing


def refused(table, shape=(3, 224, 224), where=WHERE):
    with pytest.raises(RecipeError) as caught:
        read(table, shape, where)
    assert caught.value.hint and caught.value.where
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "shape", "changed"),
    [
        ({"preset": "torchvision"}, (3, 224, 224), {}),
        ({"preset": "timm"}, (3, 224, 224), {"interpolation": "bicubic"}),
        (
            {"preset": "timm", "crop_fraction": 0.9},
            (3, 224, 224),
            {"interpolation": "bicubic", "resize": 248},
        ),
        ({"preset": "timm", "resize": 240}, (3, 224, 224), {"interpolation": "bicubic", "resize": 240}),
        ({"crop_fraction": 0.9}, (3, 192, 256), {"resize": (213, 284)}),
        ({"fit": "squash"}, (3, 160, 224), {"fit": "squash", "resize": (160, 224)}),
        ({"fit": "letterbox"}, (3, 64, 64), {"fit": "letterbox", "resize": (64, 64)}),
        ({"fit": "longer"}, (3, 64, 64), {"fit": "longer", "resize": 64}),
        ({"fit": "longer", "crop_fraction": 0.5}, (3, 64, 32), {"fit": "longer", "resize": (128, 64)}),
        ({"fit": "none", "preset": "torchvision"}, (3, 224, 224), {"fit": "none", "resize": None}),
        (
            {"preset": "keras-tf", "fit": "shorter", "resize": 256, "interpolation": "bilinear"},
            (3, 224, 224),
            {"divisor": 127.5, "mean": (1.0, 1.0, 1.0), "std": (1.0, 1.0, 1.0)},
        ),
        ({"preset": "gray"}, (1, 28, 28), {"color": "gray", "resize": 32, "mean": (0.5,), "std": (0.5,)}),
    ],
)
def test_short_forms_become_explicit_keys(table, shape, changed):
    assert read(table, shape) == dataclasses.replace(Preprocessing(), **changed)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_does_not_outlive_its_reading(preset):
    """A manifest states values: another program does not know the names."""
    shape = (1 if preset == "gray" else 3, 64, 64)
    recipe = recipe_from_dict(
        {
            "name": "x",
            "model": {"definition": "x", "classes": 2},
            "input": {"shape": shape},
            "preprocessing": {"preset": preset},
        },
        where=WHERE,
    )
    data = json.loads(json.dumps(recipe.as_dict()))
    assert set(data["preprocessing"]) == {f.name for f in dataclasses.fields(Preprocessing)}
    assert recipe_from_dict(data, where=WHERE) == recipe and not recipe.preprocessing.assumed


def test_manifests_written_before_the_new_keys_are_read():
    old = {"color": "rgb", "resize": 232, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
    assert read(old) == Preprocessing(resize=232, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"preset": "torchvison"}, ["unknown preset 'torchvison'", "did you mean 'torchvision'?"]),
        ({"preset": "absent.json"}, ["config cannot be read", "absent.json"]),
        ({"preset": ""}, ["unknown preset ''"]),
        ({"preset": "\0.json"}, ["config cannot be read"]),
        ({"preset": 3}, ["preprocessing.preset should be a string"]),
        ({"resize": 256, "crop_fraction": 0.875}, ["exclude each other"]),
        ({"crop_fraction": 0}, ["preprocessing.crop_fraction", "0.01..1"]),
        ({"crop_fraction": 87.5}, ["preprocessing.crop_fraction", "0.01..1"]),
        ({"crop_fractoin": 0.9}, ["unknown key 'preprocessing.crop_fractoin'", "'crop_fraction'"]),
        ({"fit": "none", "resize": 256}, ['"none" resizes nothing']),
        ({"fit": "longer", "resize": None}, ['"longer" needs resize']),
        ({"resize": [256]}, ["preprocessing.resize"]),
        ({"resize": [256, 0]}, ["preprocessing.resize[1]", "1 or more"]),
        ({"resize": [256, 200]}, ["crop is larger", "[256, 200]"]),
        ({"fit": "squash", "resize": 100}, ["crop is larger"]),
        ({"fill": [0, 0]}, ["fill needs one value, or one per channel"]),
        ({"fill": []}, ["preprocessing.fill"]),
        ({"fill": [256]}, ["preprocessing.fill[0]", "0 to 255"]),
        ({"divisor": 0}, ["preprocessing.divisor", "positive"]),
        ({"resampling": "opencv2"}, ["'pillow', 'opencv'"]),
        ({"color": "gray"}, ["gray images have 1 channels"]),
        ({"preset": "gray"}, ["gray images have 1 channels"]),
    ],
)
def test_what_a_table_gets_wrong_is_named(table, words):
    said = refused(table)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["invalid JSON"]),
        ("[]", ["not a data config of timm"]),
        ('{"architecture": "resnet18"}', ["no mean and std"]),
        ('{"mean": [0.5], "std": "x"}', ["std should be"]),
        ('{"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "crop_mode": "corner"}', ["crop_mode 'corner'"]),
        ('{"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "interpolation": "cubic"}', ["interpolation"]),
    ],
)
def test_what_a_config_gets_wrong_is_named(text, words, tmp_path):
    (tmp_path / "config.json").write_text(text)
    said = refused({"preset": "config.json"}, where=tmp_path / "x.toml")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {},
            "RGB; shorter side to 256 (bilinear, Pillow, antialiased); center crop of 224 x 224; "
            "(x / 255 - mean) / std with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225; float32 NCHW; "
            "EXIF orientation ignored",
        ),
        (
            {"preset": "keras-caffe"},
            "BGR; squashed to 224 x 224 (nearest, Pillow); center crop of 224 x 224; "
            "(x / 1 - mean) / std with mean 103.939, 116.779, 123.68 and std 1, 1, 1; float32 NCHW; "
            "EXIF orientation ignored",
        ),
        (
            {"fit": "letterbox", "fill": [114], "resampling": "opencv", "exif": True},
            "RGB; resized to fit into 224 x 224 (bilinear, OpenCV); center crop of 224 x 224, "
            "padded with 114; (x / 255 - mean) / std with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, "
            "0.225; float32 NCHW; EXIF orientation applied",
        ),
    ],
)
def test_the_description_states_every_step(table, words):
    assert described(read(table), (3, 224, 224)) == words


@given(st.sampled_from([1, 3]), st.integers(1, 2000), st.integers(1, 2000))
def test_what_is_assumed_fits_every_input(channels, height, width):
    shape = (channels, height, width)
    found = assumed(shape)
    assert found.assumed and contradiction(found, shape) is None and described(found, shape)


def test_a_key_of_a_step_does_not_depend_on_who_stated_the_values():
    stated = dataclasses.replace(assumed((3, 224, 224)), assumed=False)
    assert stated.as_key() == assumed((3, 224, 224)).as_key() and "fit" in stated.as_key()


def test_an_assumption_survives_in_a_recipe():
    text = 'name = "x"\nmodel = { definition = "x.onnx", classes = 2 }\npreprocessing = { assumed = true }\n'
    assert parse_recipe(text, where=WHERE).preprocessing.assumed
