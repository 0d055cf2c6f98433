"""Checkpoints fine-tuned for other classes: from the file to a bundle that works without the recipe's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cnnx
from cnnx import models
from cnnx.data.sets import open_images
from cnnx.errors import RecipeError, WeightsError
from cnnx.pipeline.export.result import ExportResult
from cnnx.pipeline.preconditions.fine_tuned import fitted
from cnnx.recipe import read_recipe
from tests.inputs.tiny import FEW

NAMES = ["loop", "bar", "swan", "hook", "chair", "bell", "snail"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 7 classes as a training loop saves it, their names, and images in folders of them."""
    folder = tmp_path_factory.mktemp("tuned")
    torch.manual_seed(0)
    state = models.build("lenet5", classes=7, arguments={}).state_dict()
    torch.save({"epoch": 9, "state_dict": {f"module.{n}": t for n, t in state.items()}}, folder / "mine.pth")
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    digits = list(open_images("digits", size=32, color="gray", split="validation"))
    for index, item in enumerate(digits[:28]):
        place = folder / "val" / NAMES[index % 7]
        place.mkdir(parents=True, exist_ok=True)
        item.load().save(place / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path) -> ExportResult:
    return cnnx.export(
        "lenet5",
        precision="int8",
        target="ort",
        weights=str(folder / "mine.pth"),
        class_names=folder / "names.txt",
        calibration_images=16,
        validation_data=folder / "val",
        out=folder / "bundle",
    )


def test_the_bundle_has_the_checkpoints_classes_and_the_users_names(exported: ExportResult) -> None:
    manifest = exported.bundle.manifest
    assert exported.bundle.labels == tuple(NAMES)
    assert (manifest.classes, manifest.outputs[0].shape[1]) == (7, 7)
    recipe = manifest.recipe
    assert (recipe["model"]["classes"], recipe["model"]["labels"]) == (7, "names.txt")
    assert (recipe["weights"]["top1"], recipe["published"]) == (0, [])
    notes = " ".join(exported.notes)
    assert "The checkpoint has 7 classes, the recipe 10" in notes
    assert "Preprocessing is that of the recipe lenet5: gray; shorter side" in notes
    assert "outside" not in notes and "--class-names" not in notes


def test_folders_named_after_classes_are_labelled_by_name(folder: Path, exported: ExportResult) -> None:
    """Not by sorted position, which is another order here."""
    reference = exported.bundle.reference()
    assert reference.labels is not None
    for image, label in zip(reference.ids, reference.labels.tolist(), strict=True):
        assert image.split("/")[0] == NAMES[label]


def test_the_bundle_needs_only_the_checkpoint(tmp_path: Path, folder: Path, exported: ExportResult) -> None:
    """Elsewhere, without the file of names: the bundle contains them."""
    shutil.copytree(exported.bundle.path, tmp_path / "moved")
    weights = {"weights": str(folder / "mine.pth"), "validation_data": folder / "val"}
    assert cnnx.validate(tmp_path / "moved", **weights).validation is not None
    assert cnnx.diagnose(tmp_path / "moved", images=8, **weights).findings.layers
    assert cnnx.validate(tmp_path / "moved").verdict.value == "passed"


Command = Callable[..., tuple[int, str, str]]


def test_without_names_there_are_none(folder: Path, tmp_path: Path, cnnx_command: Command) -> None:
    """The built-in digits have ten classes, so their labels are not used either."""
    weights = ("--weights", folder / "mine.pth", "--target", "ort", "--json")
    code, out, _ = cnnx_command("export", "lenet5", "--fp16", *weights, "--out", tmp_path / "b", *FEW[-4:])
    result: dict[str, Any] = json.loads(out)["result"]
    assert code in (0, 1, 6)
    notes = " ".join(result["notes"])
    assert "no class names (give them with --class-names)" in notes
    assert "the set has 10 classes, the network 7: labels unused" in notes
    assert not (tmp_path / "b" / "labels.txt").exists()


def test_an_onnx_file_takes_names(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("index,name\n" + "".join(f"{i},n{i}\n" for i in range(10)))
    result = cnnx.export(
        tiny, precision="fp32", class_names=tmp_path / "names.csv", validation_images=8, out=tmp_path / "b"
    )
    assert result.bundle.labels == tuple(f"n{i}" for i in range(10))


def test_calibration_fits_the_recipe_too(folder: Path) -> None:
    result = cnnx.calibrate("lenet5", weights=str(folder / "mine.pth"), calibration_images=8, method="max")
    assert "The checkpoint has 7 classes" in result.notes[0]


def test_published_weights_are_not_fitted_and_one_logit_is_refused(tmp_path: Path) -> None:
    recipe = read_recipe("lenet5")
    assert fitted(recipe, "standin", trust_recipe=False) == (recipe, ())
    torch.save(models.build("lenet5", classes=1, arguments={}).state_dict(), tmp_path / "one.pth")
    with pytest.raises(WeightsError, match="has 1 logit"):
        fitted(recipe, str(tmp_path / "one.pth"), trust_recipe=False)


def test_a_definition_of_the_users_is_fitted(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build(classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes))\n"
    )
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\n[model]\ndefinition = "net.py:build"\nclasses = 10\n[input]\nshape = [3, 4, 4]\n'
    )
    torch.save({"1.weight": torch.ones(5, 48), "1.bias": torch.ones(5)}, tmp_path / "mine.pth")
    recipe = read_recipe(str(tmp_path / "mine.toml"))
    changed, notes = fitted(recipe, str(tmp_path / "mine.pth"), trust_recipe=True)
    assert changed.model.classes == 5
    assert len(notes) == 2
    with pytest.raises(RecipeError, match="--trust-recipe"):
        fitted(recipe, str(tmp_path / "mine.pth"), trust_recipe=False)
