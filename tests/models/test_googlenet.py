"""GoogLeNet compared with table 1 of arXiv:1409.4842 and the lecture's arithmetic for one module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from cnnx.graph.export import export_model
from cnnx.graph.simplify import simplify
from cnnx.models.count import layer_rows
from cnnx.models.googlenet import GoogLeNetOutputs, Inception, NaiveInception, googlenet, googlenet_bn
from cnnx.record import LayerRow

# Table 1: side, then filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj.
TABLE = {
    "3a": (28, 64, 96, 128, 16, 32, 32),
    "3b": (28, 128, 128, 192, 32, 96, 64),
    "4a": (14, 192, 96, 208, 16, 48, 64),
    "4b": (14, 160, 112, 224, 24, 64, 64),
    "4c": (14, 128, 128, 256, 24, 64, 64),
    "4d": (14, 112, 144, 288, 32, 64, 64),
    "4e": (14, 256, 160, 320, 32, 128, 128),
    "5a": (7, 256, 160, 320, 32, 128, 128),
    "5b": (7, 384, 192, 384, 48, 128, 128),
}


def meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build().eval()


def rows_of(module: nn.Module, *shape: int) -> dict[str, LayerRow]:
    return {row.name: row for row in layer_rows(module, shape)}


def convolutions(second: str, third: str, *, large: int) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Return name, weight shape and output side of each convolution, in order."""
    yield "conv1.conv", (64, 3, 7, 7), 112
    yield f"{second}.conv", (64, 64, 1, 1), 56
    yield f"{third}.conv", (192, 64, 3, 3), 56
    depth = 192
    for name, (side, one, reduce3, three, reduce5, five, project) in TABLE.items():
        module = f"inception{name}"
        yield f"{module}.branch1.conv", (one, depth, 1, 1), side
        yield f"{module}.branch2.0.conv", (reduce3, depth, 1, 1), side
        yield f"{module}.branch2.1.conv", (three, reduce3, 3, 3), side
        yield f"{module}.branch3.0.conv", (reduce5, depth, 1, 1), side
        yield f"{module}.branch3.1.conv", (five, reduce5, large, large), side
        yield f"{module}.branch4.1.conv", (project, depth, 1, 1), side
        depth = one + three + five + project


def test_the_naive_module_costs_what_the_lecture_says() -> None:
    rows = rows_of(NaiveInception(256, conv1x1=128, conv3x3=192, conv5x5=96), 256, 28, 28)
    assert {name: row.multiply_adds for name, row in rows.items() if row.op == "Conv2d"} == {
        "branch1.conv": 25_690_112,  # 28 * 28 * 128 * 1 * 1 * 256
        "branch2.conv": 346_816_512,  # 28 * 28 * 192 * 3 * 3 * 256
        "branch3.conv": 481_689_600,  # 28 * 28 * 96 * 5 * 5 * 256
    }
    assert sum(row.multiply_adds for row in rows.values()) == 854_196_224
    assert rows["branch4"].output_shape == (256, 28, 28)
    assert rows["cat"].output_shape == (672, 28, 28)  # 526,848 values


def test_dimension_reduction_costs_less_than_a_third_of_it() -> None:
    rows = rows_of(Inception(256, 128, 64, 192, 64, 96, 64), 256, 28, 28)
    assert {name: row.multiply_adds for name, row in rows.items() if row.op == "Conv2d"} == {
        "branch1.conv": 25_690_112,  # 28 * 28 * 128 * 1 * 1 * 256
        "branch2.0.conv": 12_845_056,  # 28 * 28 * 64 * 1 * 1 * 256
        "branch2.1.conv": 86_704_128,  # 28 * 28 * 192 * 3 * 3 * 64
        "branch3.0.conv": 12_845_056,
        "branch3.1.conv": 120_422_400,  # 28 * 28 * 96 * 5 * 5 * 64
        "branch4.1.conv": 12_845_056,
    }
    assert sum(row.multiply_adds for row in rows.values()) == 271_351_808
    assert rows["cat"].output_shape == (480, 28, 28)


def test_branches_are_joined_in_the_papers_order() -> None:
    """With all weights 1, a single 1 in the middle shows the kernel size of each branch."""
    module = NaiveInception(1, conv1x1=1, conv3x3=1, conv5x5=1)
    for parameter in module.parameters():
        nn.init.constant_(parameter, float(parameter.dim() > 1))
    image = torch.zeros(1, 1, 7, 7)
    image[0, 0, 3, 3] = 1
    assert module(image).sum((2, 3)).tolist() == [[1, 9, 25, 9]]


def test_googlenet_is_table_1() -> None:
    model = meta(googlenet)
    rows = rows_of(model, 3, 224, 224)
    expected = list(convolutions("conv2_reduce", "conv2", large=5))
    found = [
        (name, tuple(model.get_parameter(f"{name}.weight").shape)) for name in rows if name.endswith("conv")
    ]
    assert found == [(name, shape) for name, shape, _ in expected]
    assert [rows[name].multiply_adds for name, _, _ in expected] == [
        torch.Size(shape).numel() * side * side for _, shape, side in expected
    ]
    assert sum(row.multiply_adds for row in rows.values()) == 1_582_671_872
    assert sum(row.parameters for row in rows.values()) == 6_998_552
    # Every convolution, and the linear layer, has a bias.
    biases = sum(shape[0] for _, shape, _ in expected) + 1_000
    assert sum(p.numel() for p in model.parameters() if p.dim() == 1) == biases
    assert sum(row.op == "ReLU" for row in rows.values()) == 57
    # Figure 3: normalization after the first pool and before the second.
    stem = [row.op for name, row in rows.items() if not name.startswith("inception")][:10]
    assert stem == [
        "Conv2d", "ReLU", "MaxPool2d", "LocalResponseNorm",
        "Conv2d", "ReLU", "Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d",
    ]  # fmt: skip
    assert [rows[f"pool{i}"].output_shape for i in (1, 2, 3, 4)] == [
        (64, 56, 56), (192, 28, 28), (480, 14, 14), (832, 7, 7)
    ]  # fmt: skip
    assert [rows[f"inception{name}.cat"].output_shape[0] for name in TABLE] == [
        256, 480, 512, 512, 512, 528, 832, 832, 1024
    ]  # fmt: skip


def test_response_normalisation_is_caffes() -> None:
    """x / (1 + 1e-4 / 5 * sum of five squares) ^ 0.75, where 5 * 100^2 * 1e-4 / 5 = 1; 3 and 4 at the rim."""
    norms = [layer for layer in googlenet().modules() if isinstance(layer, nn.LocalResponseNorm)]
    assert len(norms) == 2
    expected = [100 / (1 + squares / 5) ** 0.75 for squares in (3, 4, 5, 5, 4, 3)]
    for norm in norms:
        assert norm(torch.full((1, 6, 1, 1), 100.0)).flatten().tolist() == pytest.approx(expected)


def test_side_networks_are_there_for_training_only() -> None:
    torch.manual_seed(0)
    model, plain = googlenet(auxiliary=True, classes=1000), googlenet(classes=1000).eval()
    sizes = Counter[str]()
    for name, parameter in model.named_parameters():
        sizes[name.split(".")[0]] += parameter.numel()
    # 512 or 528 * 128 + 128, 2048 * 1024 + 1024, 1024 * 1000 + 1000
    assert (sizes["aux4a"], sizes["aux4d"]) == (3_188_840, 3_190_888)
    assert sizes.total() == 13_378_280

    outputs = model(torch.rand(1, 3, 224, 224))
    assert isinstance(outputs, GoogLeNetOutputs)
    assert [tuple(output.shape) for output in outputs] == [(1, 1000)] * 3
    for output, last, next_one in ((outputs.aux4a, "4a", "4b"), (outputs.aux4d, "4d", "4e")):
        output.sum().backward(retain_graph=True)
        blocks = [model.get_submodule(f"inception{name}") for name in (last, next_one)]
        assert [next(block.parameters()).grad is None for block in blocks] == [False, True]

    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("aux")})
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.eval()(image), plain(image))


def test_googlenet_bn_is_the_published_network() -> None:
    model = meta(googlenet_bn)
    rows = rows_of(model, 3, 224, 224)
    expected = list(convolutions("conv2", "conv3", large=3))
    state = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    weights = {f"{name}.weight": shape for name, shape, _ in expected}
    assert {name: shape for name, shape in state.items() if len(shape) == 4} == weights
    norms = [name.removesuffix("conv") + "bn" for name, _, _ in expected]
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert set(state) - set(weights) == {f"{norm}.{x}" for norm in norms for x in statistics} | {
        "fc.weight",
        "fc.bias",
    }
    assert [rows[name].multiply_adds for name, _, _ in expected] == [
        torch.Size(shape).numel() * side * side for _, shape, side in expected
    ]
    assert sum(row.multiply_adds for row in rows.values()) == 1_498_376_192
    assert sum(row.parameters for row in rows.values()) == 6_624_904
    assert {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.001}
    # The fourth pool is 2x2: it takes the maximum of each pair of 16 values in a row.
    pool = model.get_submodule("maxpool4")
    assert pool(torch.arange(16.0).reshape(1, 1, 1, 16).expand(1, 1, 2, 16)).tolist() == [
        [[[1, 3, 5, 7, 9, 11, 13, 15]]]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("build", "extra"), [(googlenet, {"LRN": 2}), (googlenet_bn, {})])
def test_the_graph_is_the_network(build: Callable[[], nn.Module], extra: dict[str, int]) -> None:
    """At 63 pixels, every 3x3/2 pool reads a side (32, 16, 8, 4) for which rounding down would differ."""
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():
        if parameter.dim() == 4:  # with PyTorch's default scale, the signal vanishes over 22 layers
            nn.init.kaiming_normal_(parameter)
    graph = export_model(model, shape=(3, 63, 63))
    simplify(graph)
    operators = {
        "Conv": 57,
        "Relu": 57,
        "MaxPool": 13,
        "Concat": 9,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    }
    assert Counter(node.op_type for node in graph.graph.node) == operators | extra
    image = torch.randn(1, 3, 63, 63)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": image.numpy()})
    with torch.no_grad():
        reference = model(image).numpy()
    assert np.abs(logits - reference).max() <= 1e-4 * np.abs(reference).max()
