"""An option is stated once, and reaches Python, the command line, the recipe and the docs."""

import dataclasses
import inspect

import pytest
from typer.main import get_command

import cnnx
from cnnx.cli.app import app
from cnnx.errors import UsageError
from cnnx.options import CalibrateOptions, ExportOptions, overrides
from cnnx.pipeline.export.options import with_options
from cnnx.recipe import read_recipe

VERBS = {"export": ExportOptions, "calibrate": CalibrateOptions}


@pytest.mark.parametrize("verb", VERBS)
def test_each_option_is_a_parameter_of_the_command_and_of_the_function_with_its_help(verb):
    command = {p.name: p for p in get_command(app).commands[verb].params}
    function = inspect.signature(getattr(cnnx, verb)).parameters
    for field in dataclasses.fields(VERBS[verb]):
        names = field.metadata["flags"] or {field.name: field.metadata["help"]}
        assert {name: command[name].help for name in names} == dict(names)
        assert function[field.name].default == field.default
        assert field.metadata["help"] in getattr(cnnx, verb).__doc__


@pytest.mark.parametrize(
    ("keywords", "says"),
    [({"calibration_image": 3}, "did you mean 'calibration_images'"), ({"speed": 9}, "no option 'speed'")],
)
def test_an_unknown_keyword_is_refused_with_the_nearest_one(keywords, says):
    with pytest.raises(TypeError, match=says):
        cnnx.calibrate("lenet5", **keywords)


def test_options_are_an_object_keywords_or_both_and_keywords_win():
    with pytest.raises(UsageError, match="--folds 0"):
        cnnx.calibrate("lenet5", CalibrateOptions(folds=3), folds=0)
    with pytest.raises(TypeError, match="must be CalibrateOptions, not ExportOptions"):
        cnnx.calibrate("lenet5", ExportOptions())


def test_what_is_given_overrides_the_recipe_and_nothing_else_does():
    recipe = read_recipe("lenet5")
    assert with_options(recipe, ExportOptions()) == recipe
    options = ExportOptions(calibration_images=7, validation_data="val/", equalize=False)
    assert overrides(options) == {
        "calibration.images": 7, "validation.data": "val/", "precision.equalize": False,
    }  # fmt: skip
    changed = with_options(recipe, options)
    assert (changed.calibration.images, changed.validation.data) == (7, "val/")
    assert changed.calibration.data == recipe.calibration.data and not changed.precision.equalize
    with pytest.raises(UsageError, match="--validation-images is 0"):
        with_options(recipe, ExportOptions(validation_images=0))
