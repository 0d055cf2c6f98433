"""The advised command gives the graph that was tried, whatever options the bundle was exported with."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

import cnnx
from cnnx.bundle import Bundle
from cnnx.options.bundles import DiagnoseOptions
from cnnx.pipeline.diagnose.command import export_command
from cnnx.pipeline.diagnose.rebuild import rebuild_sources, recipe_here
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.search.changes import Changeable, with_changes
from cnnx.quant.remedies import Remedies, Remedy
from tests.conftest import invoke, save_tiny

SETS: dict[str, Any] = {
    "calibration_data": "digits",
    "calibration_images": 32,
    "validation_data": "digits",
    "validation_images": 16,
}


def hard_to_quantize(folder: Path) -> Path:
    """A network, one channel of which is a thousand times as large: equalization is the remedy."""
    file = save_tiny(folder)
    model = onnx.load(file)
    for each in model.graph.initializer:
        values = numpy_helper.to_array(each).copy()
        if each.name == "conv.weight":
            values[0] *= 1000
        elif each.name == "fc.weight":
            values[:, : 14 * 14] /= 1000
        each.CopyFrom(numpy_helper.from_array(values, each.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, file)
    return file


def typed(bundle: Path, remedies: Remedies, folder: Path, **sources: Any) -> bytes:
    """The graph of a bundle with changes, before it takes pixels; rebuilt, so it is that of the bundle."""
    made = rebuild_sources(Bundle.open(bundle), DiagnoseOptions(**sources), Steps())
    network = Changeable(made.quantizer, made.calibration, made.exported, made.images.calibration)
    quantizer, calibration = network.changed(remedies)
    folder.mkdir()
    return quantizer.write_typed(folder, calibration).read_bytes()


def check_command(bundle: Path, folder: Path, command: str, remedies: Remedies, **sources: Any) -> list[str]:
    """Export by a command, and compare with the bundle with these changes; return the command's words."""
    cnnx_, *words = shlex.split(command)
    assert cnnx_ == "cnnx"
    again = folder / "again"
    exported = invoke(*words, "--target", "ort", "--out", again)
    assert again.is_dir(), exported.output
    tried = typed(bundle, remedies, folder / "tried", **sources)
    assert typed(again, (), folder / "typed", **sources) == tried
    assert typed(bundle, (), folder / "before", **sources) != tried
    made, before = Bundle.open(again).manifest, Bundle.open(bundle).manifest
    for key in ("batch", "scales", "reference", "inputs", "has_source", "weights"):
        assert getattr(made, key) == getattr(before, key), key
    return words


@pytest.mark.parametrize(
    "options",
    [
        {"batch": (1, 4), "with_source": True, "input": "uint8-nhwc"},
        {"batch": (4, 4), "scales": "fp32", "reference": True},
        {"preprocessing": "gray", "mean": "0.25", "resize": "letterbox"},
    ],
    ids=lambda options: "-".join(options),
)
def test_the_command_gives_the_graph_that_was_tried(options: dict[str, Any], tmp_path: Path) -> None:
    model = hard_to_quantize(tmp_path)
    if "reference" in options:
        options = {**options, "reference": str(shutil.copyfile(model, tmp_path / "reference.onnx"))}
    bundle = cnnx.export(
        model, precision="int8", target="ort", equalize=False, out=tmp_path / "b", **SETS, **options
    ).bundle
    found = cnnx.diagnose(bundle.path, images=64, model=model).findings
    assert found.advice is not None and not found.advice.recipe
    advised = found.remedies[found.advice.place].remedies
    words = check_command(bundle.path, tmp_path, found.advice.command, advised, model=model)
    assert words[:3] == ["export", str(model), "--int8"]


OWN = """
name = "own"
[model]
definition = "own.py:make"
classes = 10
[input]
shape = [1, 32, 32]
[preprocessing]
preset = "gray"
"""
CODE = """
from torch import nn


def make(classes):
    features = nn.Sequential(nn.Conv2d(1, 8, 5, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU())
    return nn.Sequential(features, nn.Flatten(), nn.Linear(400, classes))
"""


def test_the_command_for_a_network_in_own_code_with_stand_in_weights(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="exports need PyTorch")
    model = tmp_path / "own.toml"
    model.write_text(OWN)
    (tmp_path / "own.py").write_text(CODE)
    bundle = cnnx.export(
        model,
        precision="int8",
        target="ort",
        weights="standin",
        trust_recipe=True,
        method="percentile-99.9",
        out=tmp_path / "b",
        **SETS,
    ).bundle
    remedy, sources = Remedy("method", method="max"), {"model": model, "trust_recipe": True}
    recipe = with_changes(recipe_here(bundle, DiagnoseOptions(**sources)), (remedy,))
    command = export_command(
        bundle, recipe, DiagnoseOptions(**sources), method=remedy.method, by_recipe=False
    )
    words = check_command(bundle.path, tmp_path, command, (remedy,), **sources)
    assert "--trust-recipe" in words and words[words.index("--weights") + 1] == "standin"
