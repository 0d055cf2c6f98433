"""AlexNet, its ablations and relatives, and ZFNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cnnx import models
from cnnx.errors import RecipeError
from tests.inputs.meta import meta, rows_of, stages, totals

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
# Section 3.5: maps * (maps read * kernel^2 + 1); conv2, conv4 and conv5 read only their own GPU's half.
TWO_TOWERS = (
    96 * (3 * 121 + 1),
    256 * (48 * 25 + 1),
    384 * (256 * 9 + 1),
    384 * (192 * 9 + 1),
    256 * (192 * 9 + 1),
    4096 * (9216 + 1),
    4096 * (4096 + 1),
    1000 * (4096 + 1),
)
PLACES = (55 * 55, 27 * 27, 13 * 13, 13 * 13, 13 * 13, 1, 1, 1)
MAPS = (96, 256, 384, 384, 256, 4096, 4096, 1000)


def test_the_papers_network_layer_by_layer() -> None:
    rows = rows_of(meta("alexnet"), 227)
    assert TWO_TOWERS == (
        34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000
    )  # fmt: skip
    assert tuple(rows[name].parameters for name in LAYERS) == TWO_TOWERS
    assert tuple(rows[name].multiply_adds for name in LAYERS) == tuple(
        (parameters - maps) * places
        for parameters, maps, places in zip(TWO_TOWERS, MAPS, PLACES, strict=True)
    )
    assert totals(rows) == (60_965_224, 724_406_816)
    assert stages(rows, ["conv1", "pool1", "pool2", "pool5"]) == [
        (96, 55, 55), (96, 27, 27), (256, 13, 13), (256, 6, 6)
    ]  # fmt: skip
    # Figure 2 prints 253,440 neurons for conv1; 55 * 55 * 96 are 290,400, and all layers 659,272.
    neurons = [rows[name].output_shape for name in LAYERS]
    assert sum(torch.Size(shape).numel() for shape in neurons) == 659_272


def test_the_lectures_network_has_no_groups_and_pools_first() -> None:
    rows = rows_of(meta("alexnet", towers=1), 227)
    assert [rows[name].parameters for name in ("conv2", "conv4", "conv5")] == [614_656, 1_327_488, 884_992]
    assert totals(rows) == (62_378_344, 1_135_256_096)
    order = [row.op for row in rows.values() if row.op in ("LocalResponseNorm", "MaxPool2d")]
    assert order == ["MaxPool2d", "LocalResponseNorm"] * 2 + ["MaxPool2d"]
    papers = [row.op for row in rows_of(meta("alexnet"), 227).values()]
    assert [op for op in papers if op in order] == ["LocalResponseNorm", "MaxPool2d"] * 2 + ["MaxPool2d"]


@pytest.mark.parametrize(
    ("without", "two", "one"),
    [
        (["fc7"], 44_183_912, 45_597_032),
        (["fc6", "fc7"], 11_551_080, 12_964_200),
        (["conv3", "conv4", "fc6", "fc7"], 9_854_568, 10_456_680),
    ],
)
def test_ablations_drop_what_the_lecture_says(without: list[str], two: int, one: int) -> None:
    """ "About 16 M" without fc7, "about 50 M" without four layers."""
    rows = [rows_of(meta("alexnet", without=without, towers=towers), 227) for towers in (2, 1)]
    assert [totals(found)[0] for found in rows] == [two, one]
    assert not set(without) & set(rows[0])
    dropped = {44_183_912: 16_781_312, 9_854_568: 51_110_656}
    if two in dropped:
        assert 60_965_224 - two == dropped[two]


def test_response_normalisation_is_the_papers_formula() -> None:
    """b = a / (k + alpha * sum of squares over five maps) ** beta, with alpha not divided by five."""
    norm = models.build("alexnet", classes=2, arguments={}).get_submodule("norm1")
    a = torch.linspace(-130, 130, 96).reshape(1, 96, 1, 1)
    squares = [float((a[0, max(0, i - 2) : i + 3] ** 2).sum()) for i in range(96)]
    wanted = [float(a[0, i]) / (2 + 1e-4 * squares[i]) ** 0.75 for i in range(96)]
    torch.testing.assert_close(norm(a).flatten(), torch.tensor(wanted), rtol=1e-5, atol=0)


def test_one_weird_trick_has_64_and_192_maps() -> None:
    rows = rows_of(meta("alexnet_owt"))
    widths = [row.output_shape for row in rows.values() if row.op == "Conv2d"]
    assert widths == [(64, 55, 55), (192, 27, 27), (384, 13, 13), (256, 13, 13), (256, 13, 13)]
    read = (3 * 121, 64 * 25, 192 * 9, 384 * 9, 256 * 9)
    weights = [reads * maps for reads, (maps, *_) in zip(read, widths, strict=True)]
    linear = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    assert totals(rows) == (
        sum(weights) + 64 + 192 + 384 + 256 + 256 + linear + 4096 + 4096 + 1000,
        sum(w * side * side for w, (_, side, _) in zip(weights, widths, strict=True)) + linear,
    )
    assert totals(rows) == (61_100_840, 714_188_480)


def test_bn_alexnet_is_two_columns_with_batch_norm() -> None:
    """The two figures of Canziani et al., 60.54 M and twice 0.65 G, identify the definition."""
    model = meta("bn_alexnet")
    weights = 96 * 3 * 121 + 256 * 48 * 25 + 384 * 128 * 9 + 384 * 192 * 9 + 256 * 192 * 9
    maps = 96 + 256 + 384 + 384 + 256
    linear = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    norms = 2 * (maps + 4096 + 4096)
    rows = rows_of(model)
    assert totals(rows) == (60_541_992, 649_646_624)
    assert totals(rows)[0] == weights + maps + linear + 4096 + 4096 + 1000 + norms
    assert [m.groups for m in model.modules() if isinstance(m, nn.Conv2d)] == [1, 2, 2, 2, 2]


def zfnet(third: int, fourth: int, fifth: int) -> tuple[int, int]:
    """Return parameters and MACs of figure 3 with these maps in conv3 to conv5."""
    table = (
        (96, 3 * 49, 110),
        (256, 96 * 25, 26),
        (third, 256 * 9, 13),
        (fourth, third * 9, 13),
        (fifth, fourth * 9, 13),
    )
    linear = ((4096, fifth * 36), (4096, 4096), (1000, 4096))
    parameters = sum(maps * (reads + 1) for maps, reads, *_ in (*table, *linear))
    places = sum(maps * reads * side * side for maps, reads, side in table)
    return parameters, places + sum(maps * reads for maps, reads in linear)


@pytest.mark.parametrize(
    ("widths", "expected"),
    [((384, 384, 256), (62_357_608, 1_168_032_896)), ((512, 1024, 512), (107_627_624, 2_476_704_896))],
)
def test_zfnet_is_figure_3_and_its_wide_variant(
    widths: tuple[int, int, int], expected: tuple[int, int]
) -> None:
    rows = rows_of(meta("zfnet", widths=list(widths)))
    assert totals(rows) == expected == zfnet(*widths)
    assert stages(rows, ["conv1", "pool1", "conv2", "pool2", "pool5"]) == [
        (96, 110, 110), (96, 55, 55), (256, 26, 26), (256, 13, 13), (widths[2], 6, 6)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("alexnet", {"without": ["fc8"]}, "choose from: conv3, conv4, fc6, fc7"),
        ("alexnet", {"towers": 3}, "choose one of: 1, 2"),
        ("zfnet", {"widths": [384]}, "model.arguments.widths needs 3 values"),
    ],
)
def test_what_the_papers_do_not_have_is_refused(name: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        models.build(name, classes=10, arguments=arguments)
    assert says in str(refusal.value)
