"""Network in Network (Lin, Chen, Yan: arXiv:1312.4400): 1x1 convolutions after each larger one, and global
average pooling instead of linear layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from torch import nn

# Output channels, kernel, stride, padding of the first convolution of each block. Both networks use them,
# except for the padding of the first block.
_BLOCKS = ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1), (1024, 3, 1, 1))


def nin(*, classes: int = 1000) -> nn.Module:
    """NiN for ImageNet, after the authors' Caffe model: (N, 3, 224, 224) -> logits (N, classes).

    layer                                  output       parameters                                  MACs
    conv1 11x11/4, cccp1, cccp2 1x1        96x54x54     34,944 + 2 * 9,312                 155,364,480
    conv2 5x5, cccp3, cccp4                256x27x27    614,656 + 2 * 65,792               543,449,088
    conv3 3x3, cccp5, cccp6                384x13x13    885,120 + 2 * 147,840              199,360,512
    conv4 3x3, cccp7                       1024x6x6     3,539,968 + 1,049,600              165,150,720
    cccp8                                  classes x6x6 1,025,000                           36,864,000
    with 1,000 classes                                  7,595,176                        1,100,188,800

    The 3x3/2 pools between the blocks round up (54, 27, 13, 6), as in Caffe. A network that rounds down
    instead has 969,460,864 MACs. ReLU follows every convolution, including the last. The paper has tables
    only for CIFAR and MNIST. torchvision does not have this network.
    """
    layers: list[tuple[str, nn.Module]] = []
    channels, mlp = 3, 1
    for number, (width, kernel, stride, padding) in enumerate(_BLOCKS, start=1):
        layers += _relued(f"conv{number}", nn.Conv2d(channels, width, kernel, stride, padding))
        for outputs in (width, classes if number == len(_BLOCKS) else width):
            layers += _relued(f"cccp{mlp}", nn.Conv2d(width, outputs, 1))
            mlp += 1
        if number < len(_BLOCKS):
            layers.append((f"pool{number}", nn.MaxPool2d(3, 2, ceil_mode=True)))
        if number == len(_BLOCKS) - 1:
            layers.append(("drop", nn.Dropout(0.5)))
        channels = width
    layers += [("pool4", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    return nn.Sequential(OrderedDict(layers))


def _relued(name: str, conv: nn.Conv2d) -> list[tuple[str, nn.Module]]:
    return [(name, conv), (f"relu_{name}", nn.ReLU(inplace=True))]


def bn_nin(*, classes: int = 1000) -> nn.Module:
    """NiN with BatchNorm and a linear classifier: (N, 3, 224, 224) -> logits (N, classes).

    The network called BN-NIN in Canziani, Paszke and Culurciello (arXiv:1605.07678), after `ninbn.lua` of
    S. Chintala's imagenet-multiGPU.torch. It has four blocks of three convolutions, each with bias, BatchNorm
    and ReLU. Pools are 3x3/2 with a padding of 1. Global average pooling and a linear layer follow the last
    block (1024x7x7). With 1,000 classes, the network has 8,655,336 parameters and 1,259,939,840 MACs. No
    checkpoint is available. torchvision does not have this network.
    """
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*_bn_features()),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(1024, classes),
        )
    )


def _bn_features() -> Iterator[nn.Module]:
    channels = 3
    for number, (width, kernel, stride, padding) in enumerate(_BLOCKS):
        first = nn.Conv2d(channels, width, kernel, stride, padding if number else 5)
        for conv in (first, nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)):
            yield from (conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        if number < len(_BLOCKS) - 1:
            yield nn.MaxPool2d(3, 2, padding=1)
        channels = width
