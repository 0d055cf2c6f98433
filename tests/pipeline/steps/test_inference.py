"""An exported graph must give the original's logits, up to the accuracy of FP32."""

import contextlib

import numpy as np
import pytest

import cnnx
from cnnx.errors import BuildFailed, InputRefused
from cnnx.pipeline.steps.inference import check_parity, graph_logits
from cnnx.recipe import read_recipe

pytest.importorskip("torch", reason="exports need PyTorch")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    few = {"validation_images": 2, "precision": "fp32"}
    return (
        cnnx.export("lenet5", out=tmp_path_factory.mktemp("bundle") / "b", **few).bundle.path / "model.onnx"
    )


@pytest.mark.parametrize(
    ("error", "refusal", "says"),
    [
        (5e-5, None, ""),
        (2e-4, BuildFailed, r"and the original give different logits: .* 0\.0002, the limit is 0\.0001"),
        (-2e-4, BuildFailed, "and the original give different logits"),
        (np.nan, InputRefused, "not finite for 1 of 3"),
    ],
)
def test_a_graph_more_than_1e_4_of_the_largest_logit_off_is_refused(error, refusal, says, graph):
    recipe = read_recipe("lenet5")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
    logits = graph_logits(graph, pixels, recipe.preprocessing)
    logits[1, 3] += error * np.abs(logits).max()
    with pytest.raises(refusal, match=says) if refusal else contextlib.nullcontext():
        check_parity(graph, pixels, logits, recipe)
