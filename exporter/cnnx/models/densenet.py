"""DenseNet (Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks,
arXiv:1608.06993): each layer of a block reads what all layers before it wrote.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from cnnx.models import choose, divided

# Depth -> growth rate k, layers of each dense block. Table 1 of the paper; 161 is among the models its
# authors released, the last version of the table has k = 32 throughout and leaves it out.
CONFIGURATIONS = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
}


def densenet(*, depth: int = 121, classes: int = 1000) -> nn.Module:
    """DenseNet-BC for ImageNet: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes (multiply-adds a picture, biases excluded):

    depth  k   layers a block  parameters  multiply-adds
    121    32  6, 12, 24, 16    7,978,856  2,834,161,664
    161    48  6, 12, 36, 24   28,681,000  7,727,907,072
    169    32  6, 12, 32, 32   14,149,480  3,359,843,328
    201    32  6, 12, 48, 32   20,013,928  4,291,365,888

    For depth 121: a 7x7/2 convolution and a 3x3/2 pool give 64x56x56; the four blocks end with 256x56x56,
    512x28x28, 1024x14x14 and 1024x7x7; a transition halves channels and sides after each but the last.

    BatchNorm and ReLU stand before a convolution, but behind the first one, as in the authors' code. Where
    they read a pool or a concatenation they fold into no convolution: the exported graph of depth 121 keeps
    62 of its 121 BatchNorms, beside 58 Concat.

    It has the parameter names of torchvision's `densenet` networks and their arithmetic.

    Raises:
        RecipeError: the paper has no such network.
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
    """DenseNet for small pictures (section 3, implementation details): (N, 3, 32, 32) -> logits (N, classes).

    Three blocks of equally many layers, at 32x32, 16x16 and 8x8, after one 3x3 convolution to 16 channels.
    With `bottleneck` it is DenseNet-BC: 2 k channels first, a 1x1 convolution to 4 k channels before each
    3x3, transitions that halve the channels. Table 2 gives 1.0 M and 0.8 M parameters for the first two,
    which with ten classes are exactly (multiply-adds a picture, biases excluded):

    depth  k   form   layers a block  parameters  multiply-adds
    40     12  plain  12               1,019,722    264,812,928
    100    12  BC     16                 769,162    287,929,692

    Depth 22 with k = 12 in the plain form and 100 classes, which a CPU can learn in minutes, has 291,676 and
    72,926,880. Dropout, which the authors use where pictures are not augmented, is left out. torchvision has
    no such network; the parameter names are those of `densenet`.

    Args:
        depth: layers with weights: 4 more than a multiple of 3, with `bottleneck` of 6.
        growth: k, the channels each layer adds.
        bottleneck: the BC form.
        classes: length of the logits.

    Raises:
        RecipeError: the depth does not give three equal blocks.
    """
    step = 6 if bottleneck else 3  # one more layer in each block; one with a bottleneck has two convolutions
    layers = divided("depth", depth - 4, step, mend=f"give 4 more than a multiple of {step}")
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
    """Stem, dense blocks with transitions between them, and classifier; `channels` leave the stem."""
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
    """Layers that each read the block's input and the outputs of all layers before (equation 2)."""

    def __init__(self, channels: int, layers: int, growth: int, *, bottleneck: bool) -> None:
        make = _bottleneck_layer if bottleneck else _plain_layer
        super().__init__(
            OrderedDict((f"denselayer{i + 1}", make(channels + i * growth, growth)) for i in range(layers))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C + layers * growth, H, W)."""
        # Joined anew from all parts each time: in INT8 a part is then rescaled once, not once a layer.
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
