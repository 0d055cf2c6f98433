"""ResNet and its variants: plain, CIFAR, pre-activation, ResNeXt and Wide ResNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cnnx import models
from cnnx.errors import RecipeError
from cnnx.models.resnet import Bottleneck, ZeroPadded
from tests.inputs.meta import meta, rows_of, stages, totals

COUNTS = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3),
    101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3),
}  # fmt: skip
SIDES = (56, 28, 14, 7)


def conv(reads: int, maps: int, kernel: int, side: int) -> tuple[int, int]:
    """Return parameters of a convolution without bias and of its BatchNorm, and its MACs."""
    weights = reads * maps * kernel * kernel
    return weights + 2 * maps, weights * side * side


def add(*counts: tuple[int, int]) -> tuple[int, int]:
    return sum(c[0] for c in counts), sum(c[1] for c in counts)


def basic_network(depth: int, *, projections: bool) -> tuple[int, int]:
    """Table 1, columns 18 and 34."""
    layers, reads = [conv(3, 64, 7, 112)], 64
    for maps, count, side in zip((64, 128, 256, 512), COUNTS[depth], SIDES, strict=True):
        if projections and reads != maps:
            layers.append(conv(reads, maps, 1, side))
        layers += [conv(reads, maps, 3, side), *[conv(maps, maps, 3, side)] * (2 * count - 1)]
        reads = maps
    return add(*layers, (512 * 1000 + 1000, 512 * 1000))


def bottleneck_network(
    depth: int, *, inner: int = 64, groups: int = 1, stride_at: str = "3x3"
) -> tuple[int, int]:
    """Table 1, columns 50 to 152; `inner` maps in the 3x3 convolution of the first stage."""
    layers, reads = [conv(3, 64, 7, 112)], 64
    for stage, (count, side) in enumerate(zip(COUNTS[depth], SIDES, strict=True)):
        maps, width = 256 << stage, inner << stage
        before = side * 2 if stage and stride_at == "3x3" else side
        for block in range(count):
            first = before if block == 0 else side
            grouped = conv(width // groups, width, 3, side)
            layers += [conv(reads, width, 1, first), grouped, conv(width, maps, 1, side)]
            if block == 0:
                layers.append(conv(reads, maps, 1, side))
            reads = maps
    return add(*layers, (2048 * 1000 + 1000, 2048 * 1000))


@pytest.mark.parametrize(
    ("depth", "shortcut", "expected"),
    [
        (18, "B", (11_689_512, 1_814_073_344)),
        (34, "B", (21_797_672, 3_663_761_408)),
        (18, "A", (11_515_688, 1_794_805_760)),
        (34, "A", (21_623_848, 3_644_493_824)),
        (18, "none", (11_515_688, 1_794_805_760)),
        (34, "none", (21_623_848, 3_644_493_824)),
    ],
)
def test_basic_blocks_are_table_1(depth: int, shortcut: str, expected: tuple[int, int]) -> None:
    rows = rows_of(meta("resnet", depth=depth, shortcut=shortcut))
    assert totals(rows) == expected == basic_network(depth, projections=shortcut == "B")
    last = [f"layer{stage}.{count - 1}.conv2" for stage, count in enumerate(COUNTS[depth], start=1)]
    assert stages(rows, last) == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert ("layer1.0.add" in rows) == (shortcut != "none")


@pytest.mark.parametrize(
    ("depth", "parameters", "paper"),
    [(50, 25_557_032, 3_857_973_248), (101, 44_549_160, 7_570_194_432), (152, 60_192_808, 11_282_415_616)],
)
def test_bottlenecks_are_table_1_in_v1_and_v1_5(depth: int, parameters: int, paper: int) -> None:
    v1, v15 = (rows_of(meta("resnet", depth=depth, stride_at=stride)) for stride in ("1x1", "3x3"))
    assert totals(v1) == (parameters, paper) == bottleneck_network(depth, stride_at="1x1")
    # Each of three 1x1 convolutions processes four times as many pixels: 3 * (side^2 * 256 * 128) each.
    assert totals(v15) == (parameters, paper + 231_211_008) == bottleneck_network(depth)
    assert v1["layer2.0.conv1"].output_shape == (128, 28, 28)
    assert v15["layer2.0.conv1"].output_shape == (128, 56, 56)
    last = [f"layer{stage}.{count - 1}.add" for stage, count in enumerate(COUNTS[depth], start=1)]
    assert stages(v15, last) == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]


@pytest.mark.parametrize(
    ("depth", "classes", "parameters", "multiply_adds"),
    [
        (20, 10, 269_722, 40_551_040),
        (20, 100, 275_572, 40_556_800),
        (32, 10, 464_154, 68_862_592),
        (44, 10, 658_586, 97_174_144),
        (56, 10, 853_018, 125_485_696),
        (110, 10, 1_727_962, 252_887_680),
    ],
)
@pytest.mark.parametrize("shortcut", ["A", "none"])
def test_cifar_networks_are_section_4_2(
    depth: int, classes: int, parameters: int, multiply_adds: int, shortcut: str
) -> None:
    blocks = (depth - 2) // 6
    layers, reads = [conv(3, 16, 3, 32)], 16
    for maps, side in ((16, 32), (32, 16), (64, 8)):
        layers += [conv(reads, maps, 3, side), *[conv(maps, maps, 3, side)] * (2 * blocks - 1)]
        reads = maps
    rows = rows_of(meta("cifar_resnet", classes, depth=depth, shortcut=shortcut), 32)
    assert totals(rows) == (parameters, multiply_adds) == add(*layers, (64 * classes + classes, 64 * classes))
    weighted = [row for row in rows.values() if row.op in ("Conv2d", "Linear")]
    assert len(weighted) == depth


@pytest.mark.parametrize(
    ("name", "arguments", "expected", "inner", "groups"),
    [
        ("resnext", {}, (25_028_904, 4_230_479_872), 128, 32),
        ("resnext", {"depth": 101, "width": 8}, (88_791_336, 16_414_015_488), 256, 32),
        ("resnext", {"depth": 101, "cardinality": 64}, (83_455_272, 15_460_270_080), 256, 64),
        ("wide_resnet", {}, (68_883_240, 11_398_021_120), 128, 1),
        ("wide_resnet", {"depth": 101}, (126_886_696, 22_753_050_624), 128, 1),
    ],
)
def test_groups_and_width_are_the_papers(
    name: str, arguments: dict[str, Any], expected: tuple[int, int], inner: int, groups: int
) -> None:
    rows = rows_of(meta(name, **arguments))
    depth = arguments.get("depth", 50)
    assert totals(rows) == expected == bottleneck_network(depth, inner=inner, groups=groups)
    assert rows["layer4.2.conv2"].output_shape == (inner * 8, 7, 7)


@pytest.mark.parametrize(
    ("depth", "expected"), [(152, (60_185_128, 11_513_626_624)), (200, (64_666_152, 15_007_481_856))]
)
def test_preactivation_costs_what_postactivation_does(depth: int, expected: tuple[int, int]) -> None:
    """The convolutions are the same; only BatchNorms move, and projections have none."""
    plain = bottleneck_network(depth)
    # ResNet: one norm after each convolution. Pre-activation: the first norm of a block has its input
    # channels (the very first block uses the stem's), none follows the third convolution or the projection,
    # and the network ends with a norm of 2,048 maps.
    moved = 2 * 2048
    reads = 64
    for stage, count in enumerate(COUNTS[depth]):
        maps = 256 << stage
        for block in range(count):
            moved += (2 * reads if stage or block else 0) - 2 * maps - (2 * maps if block == 0 else 0)
            reads = maps
    assert totals(rows_of(meta("preact_resnet", depth=depth))) == expected == (plain[0] + moved, plain[1])


def test_preactivation_for_cifar_has_164_layers_and_1_7_million_parameters() -> None:
    layers, reads = [conv(3, 16, 3, 32)], 16
    for stage, (width, side) in enumerate(((16, 32), (32, 16), (64, 8))):
        for block in range(18):
            weights = (
                conv(reads, width, 1, side),
                conv(width, width, 3, side),
                conv(width, 4 * width, 1, side),
            )
            norms = 2 * (reads if stage or block else 0) - 2 * 4 * width
            layers += [*weights, (norms, 0)]
            if block == 0:
                layers.append((reads * 4 * width, reads * 4 * width * side * side))
            reads = 4 * width
    expected = add(*layers, (2 * 256, 0), (256 * 10 + 10, 256 * 10))
    rows = rows_of(meta("cifar_preact_resnet", 10, depth=164), 32)
    assert totals(rows) == expected == (1_703_258, 244_500_992)
    main_path = [name for name, row in rows.items() if row.op in ("Conv2d", "Linear") and "down" not in name]
    assert len(main_path) == 164


def test_nothing_but_sums_stands_on_the_preactivated_path() -> None:
    """With all branches zero, a stage returns the projection of its first block."""
    net = models.build("cifar_preact_resnet", classes=10, arguments={"depth": 29})
    for name, module in net.named_modules():
        if name.endswith("conv3"):
            nn.init.zeros_(module.weight)
    stage = net.get_submodule("layer1")
    x = torch.randn(1, 16, 8, 8)
    projected = stage[0](x)
    assert torch.equal(stage(x), projected)
    assert (projected < 0).any()


def test_shortcut_a_picks_pixels_and_adds_maps_of_zeros() -> None:
    x = torch.arange(2 * 16.0).reshape(1, 2, 4, 4)
    y = ZeroPadded(3, 2)(x)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert y.shape == (1, 5, 2, 2) and not y[:, 2:].any()


def test_v1_and_v1_5_have_the_same_tensors_and_other_arithmetic() -> None:
    """A checkpoint therefore does not identify which of the two it is for."""
    torch.manual_seed(0)
    first = Bottleneck(64, 256, inner=64, strides=(2, 1)).eval()
    second = Bottleneck(64, 256, inner=64, strides=(1, 2)).eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 64, 8, 8)
    assert first(x).shape == second(x).shape
    assert not torch.allclose(first(x), second(x), atol=0.1)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("resnet", {"depth": 51}, "choose one of: 18, 34, 50, 101, 152"),
        ("resnet", {"shortcut": "C"}, "choose one of: 'A', 'B', 'none'"),
        ("resnet", {"stride_at": "7x7"}, "choose one of: '1x1', '3x3'"),
        ("resnet", {"depth": 50, "shortcut": "none"}, "18 or 34"),
        ("resnet", {"depth": 18, "stride_at": "1x1"}, "no 1x1 convolution"),
        ("resnext", {"depth": 18}, "choose one of: 50, 101, 152"),
        ("wide_resnet", {"depth": 34}, "choose one of: 50, 101, 152"),
        ("preact_resnet", {"depth": 50}, "choose one of: 152, 200"),
        ("cifar_resnet", {"depth": 21}, "6n + 2"),
        ("cifar_preact_resnet", {"depth": 100}, "9n + 2"),
    ],
)
def test_depths_and_forms_that_no_paper_has_are_refused(
    name: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError) as refusal:
        models.build(name, classes=10, arguments=arguments)
    assert says in str(refusal.value)
