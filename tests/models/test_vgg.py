"""VGG compared with table 1 of arXiv:1409.1556."""

from __future__ import annotations

import math
from typing import Any

import pytest
from torch import nn

from tests.inputs.meta import meta, rows_of, totals

# Column D: (weights of each 3x3 convolution = 9 * in * out, side of its output).
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
LINEAR = [102_760_448, 16_777_216, 4_096_000]  # 7*7*512 * 4096, 4096 * 4096, 4096 * 1000
LINEAR_BIASES = 4_096 + 4_096 + 1_000


def test_vgg16_is_the_lectures_table_term_by_term() -> None:
    model = meta("vgg", configuration="D")
    rows = rows_of(model)
    weighted = [row for row in rows.values() if row.multiply_adds]
    weights = [p.numel() for p in model.parameters() if p.dim() > 1]
    assert weights == [w for w, _ in VGG16_CONVOLUTIONS] + LINEAR
    assert sum(weights) == 138_344_128
    assert sum(p.numel() for p in model.parameters() if p.dim() == 1) == 13_416
    # Each weight of a convolution is used once at every output position; each of a linear layer once.
    assert [row.multiply_adds for row in weighted] == [w * s * s for w, s in VGG16_CONVOLUTIONS] + LINEAR
    assert totals(rows) == (138_357_544, 15_470_264_320)
    pools = [row.output_shape for row in rows.values() if row.op == "MaxPool2d"]
    assert pools == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]


def test_vgg16_writes_15_million_values_an_image() -> None:
    """Convolutions, pools and linear layers; ReLUs work in place. Not the lecture's 24 M: docs/errata.md."""
    rows = rows_of(meta("vgg", configuration="D"))
    written = {
        op: sum(math.prod(row.output_shape) for row in rows.values() if row.op == op)
        for op in ("Conv2d", "MaxPool2d", "Linear")
    }
    assert written == {"Conv2d": 13_547_520, "MaxPool2d": 1_530_368, "Linear": 9_192}
    image = 3 * 224 * 224
    assert image + sum(written.values()) == 15_237_608
    assert sum(row.activation_bytes for row in rows.values()) == 4 * (15_237_608 - image)


# Widths of the convolutions, stage by stage; a third entry in C's later stages is 1x1.
COLUMNS = {
    "A": ([64], [128], [256] * 2, [512] * 2, [512] * 2),
    "B": ([64] * 2, [128] * 2, [256] * 2, [512] * 2, [512] * 2),
    "C": ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3),
    "D": ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3),
    "E": ([64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4),
}
PARAMETERS = {"A": 132_863_336, "B": 133_047_848, "C": 133_638_952, "D": 138_357_544, "E": 143_667_240}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_adds_up(column: str, batch_norm: bool) -> None:
    weights = multiply_adds = biases = 0
    channels, side = 3, 224
    for stage in COLUMNS[column]:
        for place, width in enumerate(stage):
            kernel = 1 if column == "C" and place == 2 else 3
            weights += kernel * kernel * channels * width
            multiply_adds += kernel * kernel * channels * width * side * side
            biases, channels = biases + width, width
        side //= 2
    plain = weights + biases + sum(LINEAR) + LINEAR_BIASES
    assert plain == PARAMETERS[column]
    options: dict[str, Any] = {"batch_norm": True} if batch_norm else {}
    rows = rows_of(meta("vgg", configuration=column, **options))
    # A BatchNorm has a scale and a shift where a convolution has a bias.
    assert totals(rows) == (plain + 2 * biases * batch_norm, multiply_adds + sum(LINEAR))
    norms = sum(row.op == "BatchNorm2d" for row in rows.values())
    assert norms == batch_norm * sum(map(len, COLUMNS[column]))


def test_three_small_kernels_cost_less_than_one_large() -> None:
    """Section 2.3: a stack of three 3x3 layers has 27 C^2 weights where one 7x7 layer has 49 C^2."""
    width = 64
    stack = nn.Sequential(*(nn.Conv2d(width, width, 3, bias=False) for _ in range(3)))
    large = nn.Conv2d(width, width, 7, bias=False)
    counts = [sum(p.numel() for p in net.parameters()) for net in (stack, large)]
    assert counts == [27 * width**2, 49 * width**2]
    assert rows_of(stack, 7, width)["2"].output_shape == rows_of(large, 7, width)[""].output_shape
