"""Networks compared with the arithmetic of their papers, and building one by name."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnnx import models
from cnnx.errors import RecipeError
from cnnx.models.count import layer_rows, trace
from cnnx.recipe import read_recipe, recipe_names
from tests.inputs.meta import meta

PUBLISHED = json.loads((Path(__file__).parent / "published_tensors.json").read_text())


@given(
    groups=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
)
@settings(max_examples=30)
def test_convolutions_are_counted_as_they_are_computed(
    groups: int, kernel: tuple[int, int], size: tuple[int, int]
) -> None:
    """With all weights and inputs 1, the outputs of an unpadded convolution add up to its MACs."""
    model = nn.Conv2d(2 * groups, 3 * groups, kernel, groups=groups, bias=False)
    nn.init.ones_(model.weight)
    (row,) = layer_rows(model, (2 * groups, *size))
    assert row.multiply_adds == int(model(torch.ones(1, 2 * groups, *size)).sum())


def test_counting_leaves_the_model_alone_and_counts_a_shared_layer_once() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, shared).eval()
    before = model(torch.ones(1, 4))
    rows = layer_rows(model, (4,))
    assert [(row.parameters, row.multiply_adds) for row in rows] == [(20, 16), (0, 16)]
    assert torch.equal(model(torch.ones(1, 4)), before)
    assert not shared._forward_hooks


def test_tied_parameters_count_once_and_fused_attention_counts() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.second(self.first(x))
            return nn.functional.scaled_dot_product_attention(x, x, x)

    rows = layer_rows(Tied(), (3, 4))
    assert sum(row.parameters for row in rows) == 16 + 4 + 4
    assert sum(row.multiply_adds for row in rows) == 2 * 3 * 16 + 2 * 3 * 3 * 4


def test_a_wrong_input_shape_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"does not accept an input of shape \[3, 32, 32\]"):
        layer_rows(meta("vgg", 10), (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("resnet_v1", {}, "did you mean 'resnet'"),
        ("yolo", {}, "choose one of: alexnet, alexnet_owt"),
        ("lenet5", {"widht": 2}, "remove model.arguments"),
        ("resnet", {"dept": 50}, "did you mean 'depth'"),
        ("resnet", {"depth": [50]}, "model.arguments.depth should be an integer"),
        ("cifar_resnet", {"depth": "20"}, "model.arguments.depth should be an integer"),
        ("vgg", {"batch_norm": "no"}, "model.arguments.batch_norm"),
        ("zfnet", {"widths": 512}, "model.arguments.widths"),
        ("zfnet", {"widths": [-1, 384, 256]}, "cannot be built"),
        ("alexnet", {"without": 7}, "model.arguments.without"),
        ("wide_resnet", {"factor": 0.5}, "model.arguments.factor should be an integer"),
        ("resnext", {"cardinality": 0}, "cannot be built"),
        ("cifar_densenet", {"growth": -1}, "cannot be built"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, arguments: dict[str, int], says: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        models.build(name, classes=10, arguments=arguments)
    assert says in str(refusal.value)


@pytest.mark.parametrize("name", sorted(models.DEFINITIONS.keys() - {"lenet5_1998"}))
def test_every_definition_builds_with_any_number_of_classes(name: str) -> None:
    model = meta(name, 7)
    assert not model.training
    side = (
        227
        if name == "alexnet"
        else 299
        if "inception" in name
        else 32
        if "cifar" in name or name.startswith("small_") or name == "lenet5"
        else 224
    )
    assert trace(model, (1 if name == "lenet5" else 3, side, side))[1] == (7,)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_states_its_networks_counts(name: str) -> None:
    """Family tests check definitions against the papers; recipes repeat the counts for `cnnx list`."""
    recipe = read_recipe(name)
    model = meta(recipe.model.definition, recipe.model.classes, **recipe.model.arguments)
    rows = layer_rows(model, recipe.input.shape)
    assert recipe.model.parameters == sum(row.parameters for row in rows)
    assert recipe.model.multiply_adds == sum(row.multiply_adds for row in rows)
    assert trace(model, recipe.input.shape)[1] == (recipe.model.classes,)


@pytest.mark.parametrize("name", recipe_names())
def test_every_docstring_has_its_networks_counts(name: str) -> None:
    recipe = read_recipe(name)
    module, function = models.DEFINITIONS[recipe.model.definition].split(":")
    said = " ".join(str(getattr(importlib.import_module(module), function).__doc__).split())
    for count in (recipe.model.parameters, recipe.model.multiply_adds):
        assert f"{count:,}" in said


def test_defaults_count_as_given() -> None:
    spelled = models.with_defaults("resnet", {"depth": 50, "shortcut": "B", "stride_at": "3x3"})
    assert models.with_defaults("resnet", {"depth": 50}) == spelled
    assert models.with_defaults("zfnet", {"widths": [384, 384, 256]}) == models.with_defaults("zfnet", {})


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_published_checkpoint_finds_its_tensors(name: str) -> None:
    """Names and shapes of the tensors saved by torchvision 0.28 and timm 1.0.31, without auxiliary heads."""
    recipe = read_recipe(name)
    model = meta(recipe.model.definition, recipe.model.classes, **recipe.model.arguments)
    lines = [f"{key} {list(tensor.shape)}\n" for key, tensor in sorted(model.state_dict().items())]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == PUBLISHED[name]


def test_recipes_with_weights_are_those_whose_tensors_are_known() -> None:
    published = {name for name in recipe_names() if read_recipe(name).weights.url}
    assert published | {"levit256"} == set(PUBLISHED)


def test_what_forward_computes_by_itself_is_a_row() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            product = self.scale(x) @ x.transpose(1, 2)
            return torch.cat([product, product], dim=2) + 1

    rows = layer_rows(Attention(), (3, 4))
    assert [(row.name, row.output_shape, row.multiply_adds) for row in rows] == [
        ("scale", (3, 4), 48),
        ("bmm", (3, 3), 36),
        ("cat", (3, 6), 0),
        ("add", (3, 6), 0),
    ]
    assert [row.activation_bytes for row in rows] == [48, 36, 72, 72]


def test_naming_networks_needs_no_torch() -> None:
    code = "import sys, cnnx.models, cnnx.weights, cnnx.data.class_names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
