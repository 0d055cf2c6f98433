"""VGG (Simonyan and Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition,
arXiv:1409.1556, table 1): stages of 3x3 convolutions, a 2x2 pool after each, three linear layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

# Table 1 of the paper, one stage an entry: the output channels of its convolutions.
CONFIGURATIONS = {
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


def vgg16(classes: int = 1000) -> nn.Module:
    """VGG-16, configuration D: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes: 138,357,544 parameters (138,344,128 weights, 13,416 biases) and 15,470,264,320
    multiply-adds a picture (biases excluded). Multiply-adds are weights times output positions:

    stage  output        weights                                      multiply-adds
    1      64x112x112    1,728 + 36,864                               1,936,392,192
    2      128x56x56     73,728 + 147,456                             2,774,532,096
    3      256x28x28     294,912 + 2 * 589,824                        4,624,220,160
    4      512x14x14     1,179,648 + 2 * 2,359,296                    4,624,220,160
    5      512x7x7       3 * 2,359,296                                1,387,266,048
    fc     classes       102,760,448 + 16,777,216 + 4,096,000           123,633,664

    How it differs from torchvision's `vgg16`, whose parameter names it keeps (features.N, classifier.N)
    so that published checkpoints load as they are: no AdaptiveAvgPool2d to 7 x 7 between the two parts.
    At 224 x 224 that layer does nothing, yet it would leave an AveragePool in the ONNX graph. Other
    input sizes are therefore refused by the first linear layer.
    """
    return vgg(CONFIGURATIONS["D"], classes=classes)


def vgg(stages: Sequence[Sequence[int]], *, classes: int) -> nn.Module:
    """A VGG from the output channels of each stage's convolutions, for pictures of 3 x 224 x 224."""
    side = 224 >> len(stages)
    return nn.Sequential(
        OrderedDict(
            features=_features(stages),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(stages[-1][-1] * side * side, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, classes),
            ),
        )
    )


def _features(stages: Sequence[Sequence[int]]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for stage in stages:
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
