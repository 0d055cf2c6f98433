import shutil

import pytest

import cnnx
from cnnx.resources import shared_folder
from cnnx.stats import Verdict

pytest.importorskip("torch", reason="exports need PyTorch")


def test_a_copy_of_a_shipped_recipe_finds_the_weights_and_labels_that_ship(tmp_path):
    copy = tmp_path / "mine.toml"
    shutil.copyfile(shared_folder("recipes") / "lenet5.toml", copy)
    copy.write_text(copy.read_text().replace('name = "lenet5"', 'name = "mine"'))
    result = cnnx.export(str(copy), precision="int8", out=tmp_path / "out")
    assert result.validation.verdict is Verdict.PASSED
    assert result.bundle.manifest.name == "mine-int8" and result.bundle.labels
