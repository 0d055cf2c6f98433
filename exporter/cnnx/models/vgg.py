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

    With 1,000 classes (MACs per image, without biases):

    configuration  name     parameters   with BatchNorm            MACs
    A              VGG-11   132,863,336  132,868,840       7,609,090,048
    B              VGG-13   133,047,848  133,053,736      11,308,466,176
    C              VGG-16C  133,638,952  133,647,400      11,770,888,192
    D              VGG-16   138,357,544  138,365,992      15,470,264,320
    E              VGG-19   143,667,240  143,678,248      19,632,062,464

    C is D with 1x1 kernels in the third convolution of stages 3 to 5. Stages end at 112, 56, 28, 14 and 7
    pixels. With `batch_norm`, a BatchNorm follows each convolution, as in torchvision's `_bn` networks. The
    paper has no BatchNorm, and no LRN, which did not help in its configuration A-LRN.

    Parameter names are those of torchvision's networks (features.N, classifier.N), so that published
    checkpoints load unchanged. Unlike those, there is no AdaptiveAvgPool2d to 7 x 7 between the two parts.
    That layer is the identity at 224 x 224, but would add an AveragePool to the ONNX graph. Without it, the
    first linear layer refuses other input sizes. torchvision does not have configuration C.

    Raises:
        RecipeError: the configuration is not A, B, C, D or E.
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
    """Small VGG with BatchNorm for images of 32 x 32: (N, 3, 32, 32) -> logits (N, classes).

    The configuration is cnnx's own, not from a paper: pairs of 3x3 convolutions with 32, 64 and 128 maps at
    32, 16 and 8 pixels, a 2x2 pool after each pair, and two linear layers. With 100 classes, the network has
    425,668 parameters and 38,770,944 MACs.

    The hidden linear layer also has a BatchNorm. Without it, SGD can push all of its 64 units below zero
    early in training, because none of its 2,048 inputs is negative. Training then succeeds only by chance.
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
