"""DenseNet against table 1 and section 3 of arXiv:1608.06993."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from cnnx.errors import RecipeError
from cnnx.graph.export import export_model
from cnnx.graph.simplify import simplify
from cnnx.models.count import layer_rows
from cnnx.models.densenet import DenseBlock, cifar_densenet, densenet

# Depth: growth rate, layers of each block, total parameters and MACs.
TABLE_1 = {
    121: (32, (6, 12, 24, 16), 7_978_856, 2_834_161_664),
    161: (48, (6, 12, 36, 24), 28_681_000, 7_727_907_072),
    169: (32, (6, 12, 32, 32), 14_149_480, 3_359_843_328),
    201: (32, (6, 12, 48, 32), 20_013_928, 4_291_365_888),
}
Convolution = tuple[str, int, int, int]  # name, input channels, weights, side of its output


def blocks_of(
    channels: int, side: int, layers: Sequence[int], k: int, *, bottleneck: bool
) -> tuple[list[Convolution], int]:
    """Return the convolutions of blocks and transitions for `channels` inputs, and the output channels."""
    found: list[Convolution] = []
    for block, count in enumerate(layers, 1):
        for layer in range(1, count + 1):
            name = f"features.denseblock{block}.denselayer{layer}.conv"
            if bottleneck:
                found.append((f"{name}1", channels, channels * 4 * k, side))
                found.append((f"{name}2", 4 * k, 9 * 4 * k * k, side))
            else:
                found.append((f"{name}1", channels, 9 * channels * k, side))
            channels += k
        if block < len(layers):
            reduced = channels // 2 if bottleneck else channels
            found.append((f"features.transition{block}.conv", channels, channels * reduced, side))
            channels, side = reduced, side // 2
    return found, channels


@pytest.mark.parametrize("depth", TABLE_1)
def test_densenet_is_table_1(depth: int) -> None:
    k, layers, parameters, multiply_adds = TABLE_1[depth]
    with torch.device("meta"):
        model = densenet(depth=depth).eval()
    rows = layer_rows(model, (3, 224, 224))
    convolutions, last = blocks_of(2 * k, 56, layers, k, bottleneck=True)
    convolutions.insert(0, ("features.conv0", 3, 49 * 3 * 2 * k, 112))
    assert 1 + len(convolutions) == depth  # and the linear layer
    assert [(r.name, r.parameters, r.multiply_adds) for r in rows if r.op == "Conv2d"] == [
        (name, weights, weights * side**2) for name, _, weights, side in convolutions
    ]
    # A BatchNorm has two values per channel. One precedes each convolution but the first; two at the ends.
    norms = sum(channels for _, channels, _, _ in convolutions[1:]) + 2 * k + last
    linear = 1000 * last
    total = sum(weights for _, _, weights, _ in convolutions) + 2 * norms + linear + 1000
    assert sum(row.parameters for row in rows) == total == parameters
    total = sum(weights * side**2 for _, _, weights, side in convolutions) + linear
    assert sum(row.multiply_adds for row in rows) == total == multiply_adds
    names = {name for name, _, _, _ in convolutions} | {"features.norm5", "classifier"}
    names |= {name.replace("conv", "norm") for name in names}
    assert {key.rpartition(".")[0] for key in model.state_dict()} == names


def test_densenet_121_has_the_shapes_of_table_1() -> None:
    with torch.device("meta"):
        rows = layer_rows(densenet().eval(), (3, 224, 224))
    shapes = {row.name: row.output_shape for row in rows}
    layers = ["pool0", "transition1.pool", "transition2.pool", "transition3.pool", "relu5"]
    assert [shapes[f"features.{layer}"] for layer in layers] == [
        (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7), (1024, 7, 7)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("depth", "bottleneck", "layers", "classes", "parameters", "multiply_adds"),
    [
        (40, False, 12, 10, 1_019_722, 264_812_928),
        (100, True, 16, 10, 769_162, 287_929_692),
        (22, False, 6, 100, 291_676, 72_926_880),
    ],
)
def test_cifar_densenet_is_section_3(
    depth: int, bottleneck: bool, layers: int, classes: int, parameters: int, multiply_adds: int
) -> None:
    first = 24 if bottleneck else 16
    with torch.device("meta"):
        model = cifar_densenet(depth=depth, growth=12, bottleneck=bottleneck, classes=classes).eval()
    rows = layer_rows(model, (3, 32, 32))
    convolutions, last = blocks_of(first, 32, [layers] * 3, 12, bottleneck=bottleneck)
    norms = sum(channels for _, channels, _, _ in convolutions) + last
    convolutions.insert(0, ("features.conv0", 3, 9 * 3 * first, 32))
    assert 1 + len(convolutions) == depth
    weights = sum(weights for _, _, weights, _ in convolutions) + classes * last
    assert sum(row.parameters for row in rows) == weights + classes + 2 * norms == parameters
    total = sum(weights * side**2 for _, _, weights, side in convolutions) + classes * last
    assert sum(row.multiply_adds for row in rows) == total == multiply_adds


@torch.no_grad()
def test_each_layer_of_a_block_reads_what_all_before_it_wrote() -> None:
    block = DenseBlock(5, 4, 3, bottleneck=True).eval()
    x = torch.randn(2, 5, 8, 8)
    joined = block(x)
    assert joined.shape == (2, 5 + 4 * 3, 8, 8)
    assert torch.equal(joined[:, :5], x)
    for i, layer in enumerate(block):
        read, written = joined[:, : 5 + 3 * i], joined[:, 5 + 3 * i : 8 + 3 * i]
        assert torch.allclose(layer(read.contiguous()), written, atol=1e-6)


def test_the_graph_has_one_concatenation_a_layer_and_only_batch_norms_that_cannot_fold() -> None:
    torch.manual_seed(0)
    graph = export_model(cifar_densenet(depth=16, bottleneck=True), shape=(3, 32, 32))
    simplify(graph)
    # Two layers per block: their first BatchNorms, those of the two transitions, and the last.
    assert Counter(node.op_type for node in graph.graph.node) == {
        "Conv": 15, "Relu": 15, "BatchNormalization": 6 + 2 + 1, "Concat": 6, "AveragePool": 2,
        "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("build", "arguments", "says"),
    [
        (densenet, {"depth": 264}, "121, 161, 169, 201"),
        (cifar_densenet, {"depth": 41}, "4 plus a multiple of 3"),
        (cifar_densenet, {"depth": 43, "bottleneck": True}, "4 plus a multiple of 6"),
        (cifar_densenet, {"depth": 4}, "4 plus a multiple of 3"),
    ],
)
def test_a_depth_that_makes_no_network_is_refused(build, arguments, says) -> None:
    with pytest.raises(RecipeError) as refusal:
        build(**arguments)
    assert says in str(refusal.value) and "model.arguments" in str(refusal.value)
