"""DenseNet (Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks,
arXiv:1608.06993): each layer of a block reads the outputs of all previous layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from cnnx.models import choose, divided

# Depth -> growth rate k, layers of each dense block, from table 1 of the paper. Depth 161 is one of the
# models its authors released; the last version of the table has k = 32 throughout and does not list it.
CONFIGURATIONS = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
}


def densenet(*, depth: int = 121, classes: int = 1000) -> nn.Module:
    """DenseNet-BC for ImageNet: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes (MACs per image, without biases):

    depth  k   layers / block  parameters           MACs
    121    32  6, 12, 24, 16    7,978,856  2,834,161,664
    161    48  6, 12, 36, 24   28,681,000  7,727,907,072
    169    32  6, 12, 32, 32   14,149,480  3,359,843,328
    201    32  6, 12, 48, 32   20,013,928  4,291,365,888

    For depth 121, a 7x7/2 convolution and a 3x3/2 pool give 64x56x56. The four blocks end with 256x56x56,
    512x28x28, 1024x14x14 and 1024x7x7. A transition after each block but the last halves channels and sides.

    BatchNorm and ReLU precede a convolution, except the first, which they follow, as in the authors' code.
    A BatchNorm that reads a pool or a concatenation cannot be folded into a convolution. The exported graph
    of depth 121 therefore keeps 62 of its 121 BatchNorms, and has 58 Concat nodes.

    Parameter names and arithmetic are those of torchvision's `densenet` networks.

    Raises:
        RecipeError: the depth is not in the table.
    """
    growth, blocks = choose("depth", depth, CONFIGURATIONS)
    stem: dict[str, nn.Module] = {
        "conv0": nn.Conv2d(3, 2 * growth, 7, stride=2, padding=3, bias=False),
        "norm0": nn.BatchNorm2d(2 * growth),
        "relu0": nn.ReLU(inplace=True),
        "pool0": nn.MaxPool2d(3, stride=2, padding=1),
    }
    return _network(stem, 2 * growth, blocks, growth, bottleneck=True, classes=classes)


def cifar_densenet(
    *, depth: int = 40, growth: int = 12, bottleneck: bool = False, classes: int = 10
) -> nn.Module:
    """DenseNet for small images (section 3, implementation details): (N, 3, 32, 32) -> logits (N, classes).

    A 3x3 convolution to 16 channels is followed by three blocks of equal depth, at 32x32, 16x16 and 8x8. With
    `bottleneck`, the network is DenseNet-BC: the first convolution has 2 k channels, a 1x1 convolution to 4 k
    channels precedes each 3x3, and transitions halve the channels. Table 2 states 1.0 M and 0.8 M parameters
    for the following two networks. The exact values with ten classes are (MACs per image, without biases):

    depth  k   form   layers / block  parameters           MACs
    40     12  plain  12               1,019,722    264,812,928
    100    12  BC     16                 769,162    287,929,692

    Depth 22 with k = 12 in the plain form and 100 classes, which a CPU can train in minutes, has 291,676
    parameters and 72,926,880 MACs. Dropout, which the authors use without data augmentation, is left out.
    torchvision does not have this network; the parameter names are those of `densenet`.

    Args:
        depth: number of layers with weights: 4 plus a multiple of 3, or of 6 with `bottleneck`.
        growth: k, the number of channels that each layer adds.
        bottleneck: use the BC form.
        classes: length of the logits.

    Raises:
        RecipeError: the depth does not give three equal blocks.
    """
    # Depth of one more layer in each of the three blocks; a layer with bottleneck has two convolutions.
    step = 6 if bottleneck else 3
    layers = divided(
        "depth", depth - 4, step, hint=f"give 4 plus a multiple of {step}, such as {4 + 6 * step}"
    )
    channels = 2 * growth if bottleneck else 16
    stem: dict[str, nn.Module] = {"conv0": nn.Conv2d(3, channels, 3, padding=1, bias=False)}
    return _network(stem, channels, (layers,) * 3, growth, bottleneck=bottleneck, classes=classes)


def _network(
    stem: dict[str, nn.Module],
    channels: int,
    blocks: Sequence[int],
    growth: int,
    *,
    bottleneck: bool,
    classes: int,
) -> nn.Module:
    """Stem with `channels` outputs, dense blocks with transitions between them, and classifier."""
    features = OrderedDict(stem)
    for number, layers in enumerate(blocks, 1):
        features[f"denseblock{number}"] = DenseBlock(channels, layers, growth, bottleneck=bottleneck)
        channels += layers * growth
        if number < len(blocks):
            reduced = channels // 2 if bottleneck else channels
            features[f"transition{number}"] = _transition(channels, reduced)
            channels = reduced
    features[f"norm{len(blocks) + 1}"] = nn.BatchNorm2d(channels)
    features[f"relu{len(blocks) + 1}"] = nn.ReLU(inplace=True)
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(features),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(channels, classes),
        )
    )


class DenseBlock(nn.Sequential):
    """Layers that each read the block's input and the outputs of all previous layers (equation 2)."""

    def __init__(self, channels: int, layers: int, growth: int, *, bottleneck: bool) -> None:
        make = _bottleneck_layer if bottleneck else _plain_layer
        super().__init__(
            OrderedDict((f"denselayer{i + 1}", make(channels + i * growth, growth)) for i in range(layers))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C + layers * growth, H, W)."""
        # Concatenate all parts each time: in INT8, each part is then rescaled once, not once per layer.
        parts = [x]
        for layer in self:
            parts.append(layer(x))
            x = torch.cat(parts, 1)
        return x


def _plain_layer(channels: int, growth: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm1=nn.BatchNorm2d(channels),
            relu1=nn.ReLU(inplace=True),
            conv1=nn.Conv2d(channels, growth, 3, padding=1, bias=False),
        )
    )


def _bottleneck_layer(channels: int, growth: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm1=nn.BatchNorm2d(channels),
            relu1=nn.ReLU(inplace=True),
            conv1=nn.Conv2d(channels, 4 * growth, 1, bias=False),
            norm2=nn.BatchNorm2d(4 * growth),
            relu2=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )
    )


def _transition(channels: int, reduced: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, reduced, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )
