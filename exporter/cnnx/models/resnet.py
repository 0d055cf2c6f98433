"""ResNet (He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, arXiv:1512.03385) and the plain
networks it is compared with: table 1 for ImageNet, section 4.2 for CIFAR.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from cnnx.errors import RecipeError
from cnnx.models import choose, divided

Block = Callable[[int, int, int], nn.Module]
"""Builds a block from its input channels, the width of its stage and its stride."""

SHORTCUTS = ("A", "B", "none")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Table 1: blocks in each stage, by depth."""

BOTTLENECKS = {depth: counts for depth, counts in BLOCKS.items() if depth >= 50}
"""The depths whose blocks are bottlenecks."""


def resnet(*, depth: int = 50, shortcut: str = "B", stride_at: str = "3x3", classes: int = 1000) -> nn.Module:
    """ResNet for ImageNet, or the plain network of that depth: (N, 3, 224, 224) -> logits (N, classes).

    conv1 7x7/2 gives 64x112x112 and a 3x3/2 max pool 64x56x56. Four stages of 56, 28, 14 and 7 pixels, global
    average pooling and a linear layer follow. With 1,000 classes (MACs per image, without biases):

    depth  block       shortcut  parameters            MACs    stride_at "1x1"
    18     2 of 3x3    B         11,689,512   1,814,073,344
    18     2 of 3x3    A         11,515,688   1,794,805,760
    34     2 of 3x3    B         21,797,672   3,663,761,408
    34     2 of 3x3    A         21,623,848   3,644,493,824
    50     bottleneck  B         25,557,032   4,089,184,256     3,857,973,248
    101    bottleneck  B         44,549,160   7,801,405,440     7,570,194,432
    152    bottleneck  B         60,192,808  11,513,626,624    11,282,415,616

    Plain networks (shortcut "none") have the same counts as those with shortcut A, which has no parameters.

    The paper's bottleneck halves the image in its first 1x1 convolution ("v1"). The networks of the published
    checkpoints do so in the 3x3 convolution ("v1.5", after fb.resnet.torch), which is the default here. Both
    have the same tensors, but v1.5 has 231,211,008 MACs more, and the logits are unrelated.

    Parameter names and arithmetic are those of torchvision's `resnet` networks, which are v1.5. torchvision
    has no shortcut A, no plain networks and no v1.

    Args:
        depth: 18, 34, 50, 101 or 152.
        shortcut: shortcut of blocks that change the shape: "A" takes every second pixel and adds maps of
            zeros, "B" is a 1x1 convolution. "none" leaves out all shortcuts.
        stride_at: convolution of a bottleneck that halves the image, "1x1" or "3x3".
        classes: length of the logits.

    Raises:
        RecipeError: the paper has no network with these arguments.
    """
    counts = choose("depth", depth, BLOCKS)
    choose("shortcut", shortcut, dict.fromkeys(SHORTCUTS))
    strided = choose("stride_at", stride_at, {"1x1": 0, "3x3": 1})
    if depth in BOTTLENECKS and shortcut == "none":
        raise RecipeError(
            f"invalid depth {depth}: plain networks have 18 or 34 layers",
            where="model.arguments",
            hint="set depth to 18 or 34, or shortcut to A or B",
        )
    if depth not in BOTTLENECKS and not strided:
        raise RecipeError(
            f"invalid stride_at '1x1': blocks of depth {depth} have no 1x1 convolution",
            where="model.arguments",
            hint="remove stride_at, or set depth to 50 or more",
        )

    def basic(channels: int, width: int, stride: int) -> nn.Module:
        return BasicBlock(channels, width, stride=stride, shortcut=shortcut)

    def bottleneck(channels: int, width: int, stride: int) -> nn.Module:
        strides = (1, stride) if strided else (stride, 1)
        return Bottleneck(channels, 4 * width, inner=width, strides=strides, shortcut=shortcut)

    if depth in BOTTLENECKS:
        return imagenet_stages(bottleneck, counts, 4, classes)
    return imagenet_stages(basic, counts, 1, classes)


def imagenet_stages(block: Block, counts: Sequence[int], expansion: int, classes: int) -> nn.Module:
    """Network of table 1 with any block; stages have `expansion` times 64, 128, 256 and 512 output maps."""
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels = 64
    for number, count in enumerate(counts, start=1):
        width = 64 << (number - 1)
        layers[f"layer{number}"] = stage(
            block, channels, width, count, stride=1 if number == 1 else 2, outputs=width * expansion
        )
        channels = width * expansion
    layers.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes))
    return nn.Sequential(layers)


def stage(block: Block, channels: int, width: int, count: int, *, stride: int, outputs: int) -> nn.Sequential:
    """Sequence of `count` blocks; the first maps `channels` to `outputs` and has the stride."""
    first = block(channels, width, stride)
    return nn.Sequential(first, *(block(outputs, width, 1) for _ in range(count - 1)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left), with or without a shortcut."""

    def __init__(self, channels: int, width: int, *, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = make_shortcut(shortcut, channels, width, stride)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> (N, width, H / stride, W / stride)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        added: torch.Tensor = self.relu2(y if self.downsample is None else y + self.downsample(x))
        return added


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (figure 5, right).

    Args:
        channels: number of input maps.
        outputs: number of output maps.
        inner: number of maps of the 3x3 convolution.
        strides: strides of the first 1x1 and of the 3x3 convolution.
        shortcut: see `resnet`.
        groups: groups of the 3x3 convolution.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        inner: int,
        strides: tuple[int, int],
        shortcut: str = "B",
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner, inner, 3, strides[1], padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = make_shortcut(shortcut, channels, outputs, max(strides))
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> (N, outputs, H / stride, W / stride)."""
        y = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        added: torch.Tensor = self.relu3(y if self.downsample is None else y + self.downsample(x))
        return added


def make_shortcut(option: str, channels: int, outputs: int, stride: int) -> nn.Module | None:
    """Return the shortcut of a block (section 3.3), or None in a plain network."""
    if option == "none":
        return None
    if channels == outputs and stride == 1:
        return nn.Identity()
    if option == "A":
        return ZeroPadded(outputs - channels, stride)
    return nn.Sequential(
        nn.Conv2d(channels, outputs, 1, stride, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ZeroPadded(nn.Module):
    """Shortcut A: every `stride`-th pixel, followed by `added` maps of zeros."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.pick = nn.MaxPool2d(1, stride)  # a pool with a window of one pixel is strided slicing
        self._added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C + added, H / stride, W / stride)."""
        return functional.pad(self.pick(x), (0, 0, 0, 0, 0, self._added))


def cifar_resnet(*, depth: int = 20, shortcut: str = "A", classes: int = 10) -> nn.Module:
    """ResNet for CIFAR, or the plain network of that depth: (N, 3, 32, 32) -> logits (N, classes).

    A 3x3 convolution with 16 maps is followed by three stages of n blocks with 16, 32 and 64 maps at 32, 16
    and 8 pixels, global average pooling, and a linear layer: 6n + 2 layers in total. With ten classes and
    shortcut A or "none" (MACs per image, without biases):

    depth   20          32          44          56           110
    params  269,722     464,154     658,586     853,018      1,727,962
    MACs    40,551,040  68,862,592  97,174,144  125,485,696  252,887,680

    With 100 classes, depth 20 has 275,572 parameters and 40,556,800 MACs. Not in torchvision.

    Args:
        depth: 6n + 2, such as 20, 32, 44, 56 or 110.
        shortcut: see `resnet`; the paper uses A here.
        classes: length of the logits.

    Raises:
        RecipeError: the depth is not 6n + 2, or the shortcut is unknown.
    """
    blocks = divided("depth", depth - 2, 6, hint="give 6n + 2, such as 20, 32, 44, 56 or 110")
    choose("shortcut", shortcut, dict.fromkeys(SHORTCUTS))

    def basic(channels: int, width: int, stride: int) -> nn.Module:
        return BasicBlock(channels, width, stride=stride, shortcut=shortcut)

    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(16),
            relu=nn.ReLU(inplace=True),
            layer1=stage(basic, 16, 16, blocks, stride=1, outputs=16),
            layer2=stage(basic, 16, 32, blocks, stride=2, outputs=32),
            layer3=stage(basic, 32, 64, blocks, stride=2, outputs=64),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(64, classes),
        )
    )
