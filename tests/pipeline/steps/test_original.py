"""The cache key of an exported graph."""

import dataclasses

import pytest

from cnnx.pipeline.steps.original import open_original
from cnnx.recipe import read_recipe


@pytest.mark.parametrize(
    "change",
    [{"training_only": ("aux.*",)}, {"rename": {"conv": "fc"}}, {"background_classes": 1}],
    ids=["training only", "rename", "background"],
)
def test_how_a_checkpoint_is_fitted_is_part_of_the_key(change):
    """The same file, fitted differently, gives different weights, so the cached graph must not be reused."""

    def key(recipe):
        return open_original(recipe, "pretrained", trust_recipe=False, progress=lambda *_: None).key()

    recipe = read_recipe("lenet5")
    other = dataclasses.replace(recipe, weights=dataclasses.replace(recipe.weights, **change))
    assert key(recipe) != key(other)
