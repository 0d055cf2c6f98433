"""Networks from a Python file next to the recipe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from cnnx.errors import RecipeError
from cnnx.models.user import load_user_model
from cnnx.recipe import Recipe, recipe_from_dict

NET = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Shape:
    classes: int

def tiny(classes, width=4):
    last = nn.Linear(width, Shape(classes).classes)
    return nn.Sequential(nn.Flatten(), nn.Linear(3, width), nn.Dropout(), last)

def number(classes):
    return classes

def broken(classes):
    return [][classes]
"""


def recipe(folder: Path, definition: str, **arguments: object) -> Recipe:
    model = {"definition": definition, "classes": 5, "arguments": arguments}
    return recipe_from_dict({"name": "mine", "model": model}, where=folder / "mine.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def test_a_function_beside_the_recipe_builds_the_network(folder: Path) -> None:
    model = load_user_model(recipe(folder, "net.py:tiny", width=2), trusted=True)
    assert not model.training
    assert model(torch.ones(4, 3, 1, 1)).shape == (4, 5)
    assert model.get_submodule("1").out_features == 2
    assert "net" not in sys.modules
    assert [path.name for path in folder.iterdir()] == ["net.py"]


def test_untrusted_code_is_not_run(folder: Path) -> None:
    (folder / "net.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    with pytest.raises(RecipeError, match="--trust-recipe"):
        load_user_model(recipe(folder, "net.py:tiny"), trusted=False)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ("net.py:tyni", "did you mean 'tiny'"),
        ("net.py:number", "returns int"),
        ("net.py:broken", "net.py, line 18"),
        ("absent.py:tiny", "cannot be read"),
        ("../outside.py:tiny", "outside the folder of its recipe"),
    ],
)
def test_what_is_wrong_with_a_definition_is_said(folder: Path, definition: str, says: str) -> None:
    (folder.parent / "outside.py").write_text(NET)
    with pytest.raises(RecipeError) as refusal:
        load_user_model(recipe(folder, definition), trusted=True)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["x = 1\ndef tiny(:\n", "x = 1\nimport no_such_module\n", "x = 1\nraise SystemExit(0)\n"]
)
def test_a_file_that_fails_names_its_line(folder: Path, text: str) -> None:
    (folder / "net.py").write_text(text)
    before = set(sys.modules)
    with pytest.raises(RecipeError, match=r"net\.py, line 2"):
        load_user_model(recipe(folder, "net.py:tiny"), trusted=True)
    assert {name for name in set(sys.modules) - before if name.startswith("_cnnx_user")} == set()


def test_wrong_arguments_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="widht"):
        load_user_model(recipe(folder, "net.py:tiny", widht=2), trusted=True)
