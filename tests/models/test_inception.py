"""Inception-v3 and -v4 compared with arXiv:1512.00567, arXiv:1602.07261 and their checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from cnnx.graph.export import export_model
from cnnx.graph.simplify import simplify
from cnnx.models.count import layer_rows
from cnnx.models.inception import inception_v3, inception_v4

# A convolution: name, inputs, outputs, height and width of the kernel, side of the output.
Convolution = tuple[str, int, int, int, int, int]

V3_STEM = [
    ("Conv2d_1a_3x3", 3, 32, 3, 3, 149),
    ("Conv2d_2a_3x3", 32, 32, 3, 3, 147),
    ("Conv2d_2b_3x3", 32, 64, 3, 3, 147),
    ("Conv2d_3b_1x1", 64, 80, 1, 1, 73),
    ("Conv2d_4a_3x3", 80, 192, 3, 3, 71),
]


def v3_at_35(depth: int, projection: int) -> list[Convolution]:
    return [
        ("branch1x1", depth, 64, 1, 1, 35),
        ("branch5x5_1", depth, 48, 1, 1, 35),
        ("branch5x5_2", 48, 64, 5, 5, 35),
        ("branch3x3dbl_1", depth, 64, 1, 1, 35),
        ("branch3x3dbl_2", 64, 96, 3, 3, 35),
        ("branch3x3dbl_3", 96, 96, 3, 3, 35),
        ("branch_pool", depth, projection, 1, 1, 35),
    ]


V3_35_TO_17 = [
    ("branch3x3", 288, 384, 3, 3, 17),
    ("branch3x3dbl_1", 288, 64, 1, 1, 35),
    ("branch3x3dbl_2", 64, 96, 3, 3, 35),
    ("branch3x3dbl_3", 96, 96, 3, 3, 17),
]


def v3_at_17(width: int) -> list[Convolution]:
    return [
        ("branch1x1", 768, 192, 1, 1, 17),
        ("branch7x7_1", 768, width, 1, 1, 17),
        ("branch7x7_2", width, width, 1, 7, 17),
        ("branch7x7_3", width, 192, 7, 1, 17),
        ("branch7x7dbl_1", 768, width, 1, 1, 17),
        ("branch7x7dbl_2", width, width, 7, 1, 17),
        ("branch7x7dbl_3", width, width, 1, 7, 17),
        ("branch7x7dbl_4", width, width, 7, 1, 17),
        ("branch7x7dbl_5", width, 192, 1, 7, 17),
        ("branch_pool", 768, 192, 1, 1, 17),
    ]


V3_17_TO_8 = [
    ("branch3x3_1", 768, 192, 1, 1, 17),
    ("branch3x3_2", 192, 320, 3, 3, 8),
    ("branch7x7x3_1", 768, 192, 1, 1, 17),
    ("branch7x7x3_2", 192, 192, 1, 7, 17),
    ("branch7x7x3_3", 192, 192, 7, 1, 17),
    ("branch7x7x3_4", 192, 192, 3, 3, 8),
]


def v3_at_8(depth: int) -> list[Convolution]:
    return [
        ("branch1x1", depth, 320, 1, 1, 8),
        ("branch3x3_1", depth, 384, 1, 1, 8),
        ("branch3x3_2a", 384, 384, 1, 3, 8),
        ("branch3x3_2b", 384, 384, 3, 1, 8),
        ("branch3x3dbl_1", depth, 448, 1, 1, 8),
        ("branch3x3dbl_2", 448, 384, 3, 3, 8),
        ("branch3x3dbl_3a", 384, 384, 1, 3, 8),
        ("branch3x3dbl_3b", 384, 384, 3, 1, 8),
        ("branch_pool", depth, 192, 1, 1, 8),
    ]


V4_STEM = [
    ("0", 3, 32, 3, 3, 149),
    ("1", 32, 32, 3, 3, 147),
    ("2", 32, 64, 3, 3, 147),
    ("3.conv", 64, 96, 3, 3, 73),
    ("4.branch0.0", 160, 64, 1, 1, 73),
    ("4.branch0.1", 64, 96, 3, 3, 71),
    ("4.branch1.0", 160, 64, 1, 1, 73),
    ("4.branch1.1", 64, 64, 1, 7, 73),
    ("4.branch1.2", 64, 64, 7, 1, 73),
    ("4.branch1.3", 64, 96, 3, 3, 71),
    ("5.conv", 192, 192, 3, 3, 35),
]
V4_INCEPTION_A = [
    ("branch0", 384, 96, 1, 1, 35),
    ("branch1.0", 384, 64, 1, 1, 35),
    ("branch1.1", 64, 96, 3, 3, 35),
    ("branch2.0", 384, 64, 1, 1, 35),
    ("branch2.1", 64, 96, 3, 3, 35),
    ("branch2.2", 96, 96, 3, 3, 35),
    ("branch3.1", 384, 96, 1, 1, 35),
]
V4_REDUCTION_A = [
    ("branch0", 384, 384, 3, 3, 17),
    ("branch1.0", 384, 192, 1, 1, 35),
    ("branch1.1", 192, 224, 3, 3, 35),
    ("branch1.2", 224, 256, 3, 3, 17),
]
V4_INCEPTION_B = [
    ("branch0", 1024, 384, 1, 1, 17),
    ("branch1.0", 1024, 192, 1, 1, 17),
    ("branch1.1", 192, 224, 1, 7, 17),
    ("branch1.2", 224, 256, 7, 1, 17),
    ("branch2.0", 1024, 192, 1, 1, 17),
    ("branch2.1", 192, 192, 7, 1, 17),
    ("branch2.2", 192, 224, 1, 7, 17),
    ("branch2.3", 224, 224, 7, 1, 17),
    ("branch2.4", 224, 256, 1, 7, 17),
    ("branch3.1", 1024, 128, 1, 1, 17),
]
V4_REDUCTION_B = [
    ("branch0.0", 1024, 192, 1, 1, 17),
    ("branch0.1", 192, 192, 3, 3, 8),
    ("branch1.0", 1024, 256, 1, 1, 17),
    ("branch1.1", 256, 256, 1, 7, 17),
    ("branch1.2", 256, 320, 7, 1, 17),
    ("branch1.3", 320, 320, 3, 3, 8),
]
V4_INCEPTION_C = [
    ("branch0", 1536, 256, 1, 1, 8),
    ("branch1_0", 1536, 384, 1, 1, 8),
    ("branch1_1a", 384, 256, 1, 3, 8),
    ("branch1_1b", 384, 256, 3, 1, 8),
    ("branch2_0", 1536, 384, 1, 1, 8),
    ("branch2_1", 384, 448, 3, 1, 8),
    ("branch2_2", 448, 512, 1, 3, 8),
    ("branch2_3a", 512, 256, 1, 3, 8),
    ("branch2_3b", 512, 256, 3, 1, 8),
    ("branch3.1", 1536, 256, 1, 1, 8),
]


@dataclass(frozen=True)
class Network:
    """Check the convolutions of a network; blocks are (prefix of the names, convolutions)."""

    build: Callable[[], nn.Module]
    blocks: list[tuple[str, list[Convolution]]]
    linear: tuple[str, int]
    parameters: int
    multiply_adds: int
    stages: dict[str, tuple[int, int, int]]
    border: list[list[float]]
    operators: dict[str, int]
    counts_padding: int

    @property
    def convolutions(self) -> list[Convolution]:
        return [(prefix + name, *rest) for prefix, block in self.blocks for name, *rest in block]


V3 = Network(
    build=inception_v3,
    blocks=[
        ("", V3_STEM),
        ("Mixed_5b.", v3_at_35(192, projection=32)),
        ("Mixed_5c.", v3_at_35(256, projection=64)),
        ("Mixed_5d.", v3_at_35(288, projection=64)),
        ("Mixed_6a.", V3_35_TO_17),
        ("Mixed_6b.", v3_at_17(128)),
        ("Mixed_6c.", v3_at_17(160)),
        ("Mixed_6d.", v3_at_17(160)),
        ("Mixed_6e.", v3_at_17(192)),
        ("Mixed_7a.", V3_17_TO_8),
        ("Mixed_7b.", v3_at_8(1280)),
        ("Mixed_7c.", v3_at_8(2048)),
    ],
    linear=("fc", 2048),
    parameters=23_834_568,
    multiply_adds=5_713_216_096,
    stages={
        "maxpool1": (64, 73, 73),
        "maxpool2": (192, 35, 35),
        "Mixed_5b.cat": (256, 35, 35),
        "Mixed_5c.cat": (288, 35, 35),
        "Mixed_5d.cat": (288, 35, 35),
        "Mixed_6a.cat": (768, 17, 17),
        "Mixed_6e.cat": (768, 17, 17),
        "Mixed_7a.cat": (1280, 8, 8),
        "Mixed_7b.cat": (2048, 8, 8),
        "Mixed_7c.cat": (2048, 8, 8),
    },
    # Always a ninth of the one corner in the window.
    border=[[4, 4, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4]],
    operators={"Conv": 94, "Relu": 94, "MaxPool": 4, "AveragePool": 9, "Concat": 11},
    counts_padding=1,
)
V4 = Network(
    build=inception_v4,
    blocks=[
        ("features.", V4_STEM),
        *((f"features.{block}.", V4_INCEPTION_A) for block in (6, 7, 8, 9)),
        ("features.10.", V4_REDUCTION_A),
        *((f"features.{block}.", V4_INCEPTION_B) for block in (11, 12, 13, 14, 15, 16, 17)),
        ("features.18.", V4_REDUCTION_B),
        *((f"features.{block}.", V4_INCEPTION_C) for block in (19, 20, 21)),
    ],
    linear=("last_linear", 1536),
    parameters=42_679_816,
    multiply_adds=12_253_974_624,
    stages={
        "features.3.cat": (160, 73, 73),
        "features.4.cat": (192, 71, 71),
        "features.5.cat": (384, 35, 35),
        "features.9.cat": (384, 35, 35),
        "features.10.cat": (1024, 17, 17),
        "features.17.cat": (1024, 17, 17),
        "features.18.cat": (1536, 8, 8),
        "features.21.cat": (1536, 8, 8),
    },
    # A quarter of the corner at the corner, a sixth at the sides, a ninth in the middle.
    border=[[9, 6, 6, 9], [6, 4, 4, 6], [6, 4, 4, 6], [9, 6, 6, 9]],
    operators={"Conv": 149, "Relu": 149, "MaxPool": 4, "AveragePool": 14, "Concat": 19},
    counts_padding=0,
)
networks = pytest.mark.parametrize("network", [V3, V4], ids=["v3", "v4"])


@networks
def test_layers_are_those_of_the_papers(network: Network) -> None:
    with torch.device("meta"):
        model = network.build().eval()
    rows = {row.name: row for row in layer_rows(model, (3, 299, 299))}
    linear, depth = network.linear
    costs = {f"{name}.conv": i * o * h * w * side**2 for name, i, o, h, w, side in network.convolutions}
    costs[linear] = depth * 1_000
    assert {name: row.multiply_adds for name, row in rows.items() if row.multiply_adds} == costs
    assert sum(costs.values()) == network.multiply_adds
    # Each output of a convolution has a scale and a shift.
    parameters = (
        sum(i * o * h * w + 2 * o for _, i, o, h, w, _ in network.convolutions) + depth * 1_000 + 1_000
    )
    assert sum(row.parameters for row in rows.values()) == parameters == network.parameters
    assert {name: rows[name].output_shape for name in network.stages} == network.stages


@networks
def test_published_checkpoints_fit(network: Network) -> None:
    with torch.device("meta"):
        model = network.build()
    linear, depth = network.linear
    expected: dict[str, tuple[int, ...]] = {}
    for name, inputs, outputs, height, width, _ in network.convolutions:
        expected[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.bn.{statistic}"] = (outputs,)
        expected[f"{name}.bn.num_batches_tracked"] = ()
    expected |= {f"{linear}.weight": (1_000, depth), f"{linear}.bias": (1_000,)}
    assert {name: tuple(values.shape) for name, values in model.state_dict().items()} == expected
    assert {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.001}


@networks
def test_average_pools_treat_the_border_as_trained(network: Network) -> None:
    """36 in each corner and 0 elsewhere: every window contains exactly one corner."""
    corners = torch.zeros(1, 1, 4, 4)
    corners[..., ::3, ::3] = 36
    with torch.device("meta"):
        pools = [layer for layer in network.build().modules() if isinstance(layer, nn.AvgPool2d)]
    assert len(pools) == network.operators["AveragePool"]
    for pool in pools:
        assert pool(corners)[0, 0].tolist() == network.border


@pytest.mark.slow
@networks
def test_the_graph_is_the_network(network: Network) -> None:
    torch.manual_seed(0)
    model = network.build().eval()
    for parameter in model.parameters():
        if parameter.dim() == 4:  # with PyTorch's default scale, the signal vanishes over this many layers
            nn.init.kaiming_normal_(parameter)
    graph = export_model(model, shape=(3, 107, 107))  # 5 x 5 instead of 17 x 17 at the paper's input size
    simplify(graph)
    operators = network.operators | {"GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert Counter(node.op_type for node in graph.graph.node) == operators
    for node in graph.graph.node:
        if node.op_type == "AveragePool":
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            assert attributes.get("count_include_pad", 0) == network.counts_padding
    image = torch.randn(1, 3, 107, 107)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": image.numpy()})
    with torch.no_grad():
        reference = model(image).numpy()
    assert np.abs(logits - reference).max() <= 1e-4 * np.abs(reference).max()
