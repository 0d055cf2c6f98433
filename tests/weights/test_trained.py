"""The networks trained on shapes100, and their hostile twins, as they ship."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from safetensors import safe_open

from cnnx import models, weights
from cnnx.data.builtin.shapes100 import draw_batch
from cnnx.data.normalize import normalize
from cnnx.recipe import Recipe, read_recipe, recipe_names
from cnnx.stats import wilson

torch = pytest.importorskip("torch", reason="the networks are PyTorch's")

SHAPES100 = [name for name in recipe_names() if read_recipe(name).validation.data == "shapes100"]
TWINS = [name for name in SHAPES100 if name.endswith(("-hostile", "-parts", "-branches"))]
TRAINED = [name for name in SHAPES100 if name not in TWINS]


def network_of(recipe: Recipe) -> torch.nn.Module:
    spec = recipe.model
    network = models.build(spec.definition, classes=spec.classes, arguments=spec.arguments)
    found = weights.locate(recipe, "pretrained", progress=lambda *_: None)
    weights.load_into(network, found, recipe, batches_for_statistics=())
    return network


def file_of(recipe: Recipe):
    return weights.locate(recipe, "pretrained", progress=lambda *_: None).file


def made(recipe: Recipe) -> dict:
    with safe_open(file_of(recipe), "pt") as file:
        return json.loads(file.metadata()["made"])


def places_changed(how: dict) -> list[dict]:
    return how.get("rescaled") or how["shifted"]


def images(recipe: Recipe, start: int, count: int):
    pixels, labels = draw_batch("validation", range(start, start + count), size=32, color="rgb")
    return torch.from_numpy(normalize(pixels, recipe.preprocessing)), labels


def original_of(twin: str) -> Recipe:
    return read_recipe(twin.rpartition("-")[0])


def test_each_trained_network_has_a_twin() -> None:
    assert len(TRAINED) == 7
    assert {name.rpartition("-")[0] for name in TWINS if name.endswith("-hostile")} == set(TRAINED)


@pytest.mark.parametrize("name", SHAPES100)
def test_weights_are_small_and_say_how_they_were_made(name: str) -> None:
    recipe = read_recipe(name)
    assert file_of(recipe).stat().st_size < 2_000_000
    how = made(recipe)
    assert how["by"].startswith("cnnx, tools/")
    if name in TWINS:
        assert how["from"] == original_of(name).weights.file and places_changed(how)
        return
    command = how["command"].replace(
        "tools/train_shapes100.py", "-m tools.train.shapes100"
    )  # as it was called
    assert command.startswith(f"python -m tools.train.shapes100 {name}")
    right = int(re.match(r"\d+", how["validation"])[0])
    assert recipe.weights.top1 == right / 100
    # The key that was in use when these were trained.
    assert [entry["pictures"] for entry in how["log"]][-1] == how["settings"]["pictures"]
    assert {"loss", "selection_top1"} <= how["log"][0].keys()


@pytest.mark.parametrize("name", TRAINED)
def test_accuracy_is_what_the_recipe_says(name: str) -> None:
    """On a slice of the validation images: its interval holds the figure of all ten thousand."""
    recipe = read_recipe(name)
    network, (inputs, labels) = network_of(recipe), images(recipe, 3000, 500)
    with torch.no_grad():
        rate = float(np.mean(network(inputs).argmax(1).numpy() == labels))
    interval = wilson(rate, 500)
    assert interval.low - 0.02 < recipe.weights.top1 / 100 < interval.high + 0.02


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_the_same_function_with_other_weights(name: str) -> None:
    twin, original = read_recipe(name), original_of(name)
    for field in dataclasses.fields(Recipe):
        if field.name not in ("name", "title", "summary", "weights"):
            assert getattr(twin, field.name) == getattr(original, field.name)
    assert twin.weights.top1 == original.weights.top1
    one, other = network_of(original), network_of(twin)
    inputs, _ = images(original, 500, 64)
    with torch.no_grad():
        expected, found = one(inputs), other(inputs)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-4
    before, after = one.state_dict(), other.state_dict()
    for layer in (layer for place in places_changed(made(twin)) for layer in place["layers"]):
        its = [key for key in before if key.startswith(f"{layer}.")]
        assert any(not torch.equal(before[key], after[key]) for key in its)
