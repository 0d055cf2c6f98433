"""VGG (Simonyan and Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition,
arXiv:1409.1556, table 1): stages of 3x3 convolutions, a 2x2 pool after each, three linear layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from torch import nn

from cnnx.models import choose

# Table 1 of the paper: output channels of the 3x3 convolutions, stage by stage; "/1" marks a 1x1 one.
CONFIGURATIONS = {
    "A": "64 | 128 | 256 256 | 512 512 | 512 512",
    "B": "64 64 | 128 128 | 256 256 | 512 512 | 512 512",
    "C": "64 64 | 128 128 | 256 256 256/1 | 512 512 512/1 | 512 512 512/1",
    "D": "64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512",
    "E": "64 64 | 128 128 | 256 256 256 256 | 512 512 512 512 | 512 512 512 512",
}


def vgg(*, configuration: str = "D", batch_norm: bool = False, classes: int = 1000) -> nn.Module:
    """VGG in one of the paper's configurations: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes (multiply-adds a picture, biases excluded):

    configuration  called   parameters   with BatchNorm   multiply-adds
    A              VGG-11   132,863,336  132,868,840       7,609,090,048
    B              VGG-13   133,047,848  133,053,736      11,308,466,176
    C              VGG-16C  133,638,952  133,647,400      11,770,888,192
    D              VGG-16   138,357,544  138,365,992      15,470,264,320
    E              VGG-19   143,667,240  143,678,248      19,632,062,464

    C is D with the third convolution of stages 3 to 5 made 1x1. Stages end at 112, 56, 28, 14 and 7 pixels.
    The paper has no BatchNorm (nor LRN, which its A-LRN found useless); with it, each convolution is
    followed by one, as torchvision's `_bn` networks are.

    How it differs from torchvision's networks, whose parameter names it keeps (features.N, classifier.N)
    so that published checkpoints load as they are: no AdaptiveAvgPool2d to 7 x 7 between the two parts.
    At 224 x 224 that layer does nothing, yet it would leave an AveragePool in the ONNX graph. Other
    input sizes are therefore refused by the first linear layer. torchvision has no C.

    Raises:
        RecipeError: the paper has no such configuration.
    """
    stages = choose("configuration", configuration, CONFIGURATIONS)
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*_features(stages, batch_norm=batch_norm)),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, classes),
            ),
        )
    )


def _features(stages: str, *, batch_norm: bool) -> Iterator[nn.Module]:
    channels = 3
    for stage in stages.split("|"):
        for convolution in stage.split():
            width, _, kernel = convolution.partition("/")
            side = int(kernel or 3)
            yield nn.Conv2d(channels, int(width), side, padding=side // 2)
            channels = int(width)
            if batch_norm:
                yield nn.BatchNorm2d(channels)
            yield nn.ReLU(inplace=True)
        yield nn.MaxPool2d(2)


def small_vgg_bn(*, classes: int = 100) -> nn.Module:
    """VGG's way for small pictures, with BatchNorm: (N, 3, 32, 32) -> logits (N, classes).

    Ours, after no paper: pairs of 3x3 convolutions with 32, 64 and 128 maps at 32, 16 and 8 pixels, a 2x2
    pool after each pair, two linear layers. With 100 classes 425,668 parameters and 38,770,944 multiply-adds.

    The hidden linear layer has a BatchNorm, too: without one SGD drives all of its 64 units below zero
    before it has learnt anything (of 2,048 inputs none is negative), and training is a matter of luck.
    """
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*_features("32 32 | 64 64 | 128 128", batch_norm=True)),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(128 * 4 * 4, 64),
                nn.BatchNorm1d(64),
                nn.ReLU(inplace=True),
                nn.Linear(64, classes),
            ),
        )
    )
