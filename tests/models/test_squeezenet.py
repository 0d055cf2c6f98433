"""SqueezeNet compared with table 1 of arXiv:1602.07360, and version 1.1 with its authors' changes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from cnnx.errors import RecipeError
from cnnx.graph.export import export_model
from cnnx.graph.simplify import simplify
from cnnx.models.count import layer_rows
from cnnx.models.squeezenet import squeezenet

FIRES = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
# Column "#parameter before pruning": conv1, fire2 to fire9, conv10.
TABLE_1 = [14_208, 11_920, 12_432, 45_344, 49_440, 104_880, 111_024, 188_992, 197_184, 513_000]
# 1.1 has 27 * 64 + 64 in conv1, and a fire2 that reads 64 channels where 1.0 has 96: (96 - 64) * 16 fewer.
VERSION_1_1 = [1_792, 11_920 - 512, *TABLE_1[2:]]
# Version: parameters per layer, conv1's channels, weights and side, indices and sides of the Fire modules,
# pools, and the two totals.
VERSIONS = {
    "1.0": (
        TABLE_1, 96, 49 * 3 * 96, 109, [3, 4, 5, 7, 8, 9, 10, 12], [54, 54, 54, 27, 27, 27, 27, 13],
        [(96, 54, 54), (256, 27, 27), (512, 13, 13)], 1_248_424, 818_924_576,
    ),
    "1.1": (
        VERSION_1_1, 64, 9 * 3 * 64, 111, [3, 4, 6, 7, 9, 10, 11, 12], [55, 55, 27, 27, 13, 13, 13, 13],
        [(64, 55, 55), (128, 27, 27), (256, 13, 13)], 1_235_496, 349_151_936,
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_squeezenet_is_table_1(version: str) -> None:
    table, channels, weights, side, indices, sides, pools, parameters, multiply_adds = VERSIONS[version]
    with torch.device("meta"):
        model = squeezenet(version=version).eval()
    rows = layer_rows(model, (3, 224, 224))
    costs = [weights * side**2]
    for (squeeze, expand), side in zip(FIRES, sides, strict=True):
        costs += [channels * squeeze * side**2, squeeze * expand * side**2, 9 * squeeze * expand * side**2]
        channels = 2 * expand
    costs.append(512 * 1000 * 13**2)
    assert [row.multiply_adds for row in rows if row.op == "Conv2d"] == costs
    assert sum(row.multiply_adds for row in rows) == sum(costs) == multiply_adds
    assert [row.output_shape for row in rows if row.op == "MaxPool2d"] == pools
    held = Counter[str]()
    for row in rows:
        held[".".join(row.name.split(".")[:2])] += row.parameters
    layers = ["features.0", *(f"features.{index}" for index in indices), "classifier.1"]
    assert [held[layer] for layer in layers] == table
    assert sum(held.values()) == sum(table) == parameters
    fires = [f"{x}.{y}" for x in layers[1:-1] for y in ("squeeze", "expand1x1", "expand3x3")]
    assert list(model.state_dict()) == [
        f"{x}.{y}" for x in (layers[0], *fires, layers[-1]) for y in ("weight", "bias")
    ]


def test_the_graph_is_convolutions_pools_and_concatenations_only() -> None:
    graph = export_model(squeezenet(version="1.1"), shape=(3, 224, 224))
    simplify(graph)
    assert Counter(node.op_type for node in graph.graph.node) == {
        "Conv": 26, "Relu": 26, "MaxPool": 3, "Concat": 8, "GlobalAveragePool": 1, "Flatten": 1
    }  # fmt: skip


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(RecipeError) as refusal:
        squeezenet(version="1.2")
    assert "1.1" in str(refusal.value) and "model.arguments" in str(refusal.value)
