"""MobileNet (Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications, arXiv:1704.04861): a depthwise 3x3 convolution, then a 1x1 convolution across the channels.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

# Output channels and stride of the separable convolutions.
SMALL = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1))


def small_mobilenet(*, classes: int = 100) -> nn.Module:
    """Small MobileNet for images of 32 x 32: (N, 3, 32, 32) -> logits (N, classes).

    The configuration is cnnx's own: the beginning of the paper's table 1 without the stride of the stem. It
    has a 3x3 convolution with 32 maps, six separable convolutions with up to 256 maps at 32, 16 and 8 pixels,
    global average pooling, and a linear layer. BatchNorm and ReLU follow both the depthwise and the pointwise
    convolutions (figure 3). With 100 classes, the network has 228,772 parameters and 20,890,624 MACs.
    """
    layers = OrderedDict[str, nn.Module](conv1=_conv_bn_relu(3, 32, 3))
    channels = 32
    for number, (outputs, stride) in enumerate(SMALL, start=2):
        layers[f"depthwise{number}"] = _conv_bn_relu(channels, channels, 3, stride=stride, groups=channels)
        layers[f"pointwise{number}"] = _conv_bn_relu(channels, outputs, 1)
        channels = outputs
    layers.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes))
    return nn.Sequential(layers)


def _conv_bn_relu(
    channels: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)))
