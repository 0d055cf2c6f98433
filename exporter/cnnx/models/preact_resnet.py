"""Pre-activation ResNet (He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks, arXiv:1603.05027):
BatchNorm and ReLU precede each convolution, so that the main path has only sums.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from cnnx.models import choose, divided

BLOCKS = {152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}


def preact_resnet(*, depth: int = 200, classes: int = 1000) -> nn.Module:
    """Pre-activation ResNet for ImageNet, with bottlenecks: (N, 3, 224, 224) -> logits (N, classes).

    Stages as in ResNet: 256x56x56, 512x28x28, 1024x14x14, 2048x7x7. With 1,000 classes:

    depth  parameters            MACs
    152    60,185,128   11,513,626,624
    200    64,666,152   15,007,481,856

    The 3x3 convolution has the stride, as in fb.resnet.torch's preresnet.lua. torchvision does not have this
    network.

    Args:
        depth: 152 or 200.
        classes: length of the logits.

    Raises:
        RecipeError: the depth is not one of the paper's for ImageNet.
    """
    stem: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)),
        ("bn1", nn.BatchNorm2d(64)),
        ("relu1", nn.ReLU(inplace=True)),
        ("maxpool", nn.MaxPool2d(3, stride=2, padding=1)),
    ]
    return _network(stem, choose("depth", depth, BLOCKS), 64, stride_at=1, classes=classes)


def cifar_preact_resnet(*, depth: int = 164, classes: int = 10) -> nn.Module:
    """Pre-activation ResNet for CIFAR, with bottlenecks: (N, 3, 32, 32) -> logits (N, classes).

    Three stages of n bottlenecks have 64, 128 and 256 maps at 32, 16 and 8 pixels: 9n + 2 layers in total.
    With ten classes, depth 164 has 1,703,258 parameters and 244,500,992 MACs. The first 1x1 convolution has
    the stride, as in the authors' code (resnet-1k-layers).

    Args:
        depth: 9n + 2, such as 164 or 1001.
        classes: length of the logits.

    Raises:
        RecipeError: the depth is not 9n + 2.
    """
    blocks = divided("depth", depth - 2, 9, hint="give 9n + 2, such as 164 or 1001")
    stem: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(3, 16, 3, padding=1, bias=False)),
        ("bn1", nn.BatchNorm2d(16)),
        ("relu1", nn.ReLU(inplace=True)),
    ]
    return _network(stem, (blocks, blocks, blocks), 16, stride_at=0, classes=classes)


def _network(
    stem: list[tuple[str, nn.Module]],
    counts: tuple[int, ...],
    width: int,
    *,
    stride_at: int,
    classes: int,
) -> nn.Module:
    """Stem, stages of `counts` blocks starting with `width`, last activation and classifier.

    `stride_at` is the index of the convolution that halves the image: 0 for the first 1x1, 1 for the 3x3.
    """
    layers, channels = OrderedDict(stem), width
    for number, count in enumerate(counts):
        blocks: list[nn.Module] = []
        for index in range(count):
            # The very first block uses the activation of the stem, before the paths split (appendix).
            first = not number and not index
            stride = 2 if number and not index else 1
            strides = (stride, 1) if stride_at == 0 else (1, stride)
            blocks.append(PreActivation(channels, width, strides=strides, activate=not first))
            channels = 4 * width
        layers[f"layer{number + 1}"] = nn.Sequential(*blocks)
        width *= 2
    layers.update(
        bn_last=nn.BatchNorm2d(channels),
        relu_last=nn.ReLU(inplace=True),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, classes),
    )
    return nn.Sequential(layers)


class PreActivation(nn.Module):
    """BatchNorm, ReLU and convolution, three times (figure 1b with a bottleneck).

    The shortcut is a 1x1 convolution of the activated input if the shape changes, otherwise the input itself.
    """

    def __init__(self, channels: int, width: int, *, strides: tuple[int, int], activate: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels) if activate else nn.Identity()
        self.relu1 = nn.ReLU(inplace=True) if activate else nn.Identity()
        self.conv1 = nn.Conv2d(channels, width, 1, strides[0], bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, strides[1], padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        changes = channels != 4 * width
        shortcut = nn.Conv2d(channels, 4 * width, 1, max(strides), bias=False)
        self.downsample = shortcut if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        active = self.relu1(self.bn1(x))
        y = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        y = self.conv3(self.relu3(self.bn3(y)))
        added: torch.Tensor = y + (x if self.downsample is None else self.downsample(active))
        return added
