"""Networks against the arithmetic of their papers, and the ways to ask for one."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnnx import models
from cnnx.errors import RecipeError
from cnnx.models.count import layer_rows

# arXiv:1409.1556, table 1, column D: (weights of each 3x3 convolution = 9 * in * out, side of its output).
VGG16_CONVOLUTIONS = [
    (1_728, 224),  # 9 * 3 * 64
    (36_864, 224),  # 9 * 64 * 64
    (73_728, 112),  # 9 * 64 * 128
    (147_456, 112),  # 9 * 128 * 128
    (294_912, 56),  # 9 * 128 * 256
    (589_824, 56),  # 9 * 256 * 256
    (589_824, 56),
    (1_179_648, 28),  # 9 * 256 * 512
    (2_359_296, 28),  # 9 * 512 * 512
    (2_359_296, 28),
    (2_359_296, 14),
    (2_359_296, 14),
    (2_359_296, 14),
]
VGG16_LINEAR = [102_760_448, 16_777_216, 4_096_000]  # 7*7*512 * 4096, 4096 * 4096, 4096 * 1000


def meta(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, classes=classes, arguments={})


def test_vgg16_is_configuration_d() -> None:
    model = meta("vgg16", 1000)
    rows = layer_rows(model, (3, 224, 224))
    weighted = [row for row in rows if row.multiply_adds]
    weights = [p.numel() for p in model.parameters() if p.dim() > 1]
    assert weights == [w for w, _ in VGG16_CONVOLUTIONS] + VGG16_LINEAR
    assert sum(weights) == 138_344_128
    assert sum(p.numel() for p in model.parameters() if p.dim() == 1) == 13_416
    assert sum(row.parameters for row in rows) == 138_357_544
    # Each weight of a convolution is used once at every output position; each of a linear layer once.
    assert [row.multiply_adds for row in weighted] == [
        w * s * s for w, s in VGG16_CONVOLUTIONS
    ] + VGG16_LINEAR
    assert sum(row.multiply_adds for row in rows) == 15_470_264_320
    pools = [row.output_shape for row in rows if row.op == "MaxPool2d"]
    assert pools == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]
    # Values written by convolutions, pools and linear layers: 13,547,520 + 1,530,368 + 9,192.
    kept = [row for row in rows if row.op in ("Conv2d", "MaxPool2d", "Linear")]
    assert sum(math.prod(row.output_shape) for row in kept) == 15_087_080


def test_vgg16_has_the_names_of_published_checkpoints() -> None:
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    layers = [f"features.{i}" for i in convolutions] + [f"classifier.{i}" for i in (0, 3, 6)]
    assert list(meta("vgg16", 1000).state_dict()) == [f"{x}.{y}" for x in layers for y in ("weight", "bias")]


def test_lenet5_is_the_lectures() -> None:
    rows = {
        row.name: row for row in layer_rows(models.build("lenet5", classes=10, arguments={}), (1, 32, 32))
    }
    layers = [rows[name] for name in ("conv1", "pool1", "conv2", "pool2", "fc1", "fc2", "fc3")]
    assert [row.output_shape for row in layers] == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)
    ]  # fmt: skip
    assert [row.parameters for row in layers] == [156, 0, 2_416, 0, 48_120, 10_164, 850]
    assert [row.multiply_adds for row in layers] == [117_600, 0, 240_000, 0, 48_000, 10_080, 840]
    assert sum(row.parameters for row in rows.values()) == 61_706
    assert sum(row.multiply_adds for row in rows.values()) == 416_520


@given(
    groups=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
)
@settings(max_examples=30, deadline=None)
def test_convolutions_are_counted_as_they_are_computed(
    groups: int, kernel: tuple[int, int], size: tuple[int, int]
) -> None:
    """With all weights and inputs 1, the outputs of an unpadded convolution add up to its multiply-adds."""
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


def test_a_wrong_input_shape_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"does not take an input of shape \[3, 32, 32\]"):
        layer_rows(meta("vgg16", 10), (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("vgg61", {}, "did you mean 'vgg16'"),
        ("transformer", {}, "known: lenet5, vgg16"),
        ("lenet5", {"widht": 2}, "model.arguments"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, arguments: dict[str, int], says: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        models.build(name, classes=10, arguments=arguments)
    assert says in str(refusal.value)


@pytest.mark.parametrize("name", models.DEFINITIONS)
def test_every_definition_builds_with_any_number_of_classes(name: str) -> None:
    model = meta(name, 7)
    assert not model.training
    assert list(model.state_dict().values())[-1].shape == (7,)


def test_naming_networks_needs_no_torch() -> None:
    code = "import sys, cnnx.models, cnnx.weights, cnnx.labels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
