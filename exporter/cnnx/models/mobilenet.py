"""MobileNet (Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications, arXiv:1704.04861): a depthwise 3x3 convolution, then a 1x1 convolution across the channels.

MobileNetV2 (Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381): a 1x1
convolution that widens, a depthwise one, and a 1x1 convolution that narrows, with a shortcut between the
narrow ends.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

# Output channels and stride of the separable convolutions.
SMALL = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1))
TABLE_1 = (*SMALL[:5], (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
# Table 2 of MobileNetV2: expansion, output channels, blocks, and stride of the first block.
BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v1(*, classes: int = 1000) -> nn.Module:
    """MobileNet: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes, it has 4,231,976 parameters and 568,740,352 MACs per image (without biases), those of
    table 8 (4.2 M and 569 M). A 3x3/2 convolution with 32 maps, 13 separable convolutions (table 1), global
    average pooling, and a linear layer. BatchNorm and ReLU follow both the depthwise and the pointwise
    convolutions (figure 3).

    Table 1 gives the last depthwise convolution stride 2 at 7 x 7, where its output stays 7 x 7: the stride
    is 1. The authors' code pads one pixel more at the right and the bottom where strides are 2; here both
    sides are padded by one, which changes no count.
    """
    return _separable(TABLE_1, classes, stride=2)


class MobileNetV2(nn.Module):
    """See `mobilenet_v2`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = 32
        layers: list[nn.Module] = [_conv_bn_relu6(3, channels, 3, stride=2)]
        for expansion, outputs, blocks, stride in BOTTLENECKS:
            for index in range(blocks):
                layers.append(_Bottleneck(channels, outputs, stride if index == 0 else 1, expansion))
                channels = outputs
        layers.append(_conv_bn_relu6(channels, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.flatten(self.avgpool(self.features(x))))
        return logits


def mobilenet_v2(*, classes: int = 1000) -> nn.Module:
    """MobileNetV2: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes, it has 3,504,872 parameters and 300,774,272 MACs per image (without biases); table 4
    has 3.4 M and 300 M. A 3x3/2 convolution with 32 maps, 17 bottlenecks (table 2), a 1x1 convolution with
    1280 maps, global average pooling, and a linear layer. ReLU6 follows each BatchNorm but a bottleneck's
    last.

    Parameter names and values are those of torchvision's `mobilenet_v2`.
    """
    return MobileNetV2(classes)


def small_mobilenet(*, classes: int = 100) -> nn.Module:
    """Small MobileNet for images of 32 x 32: (N, 3, 32, 32) -> logits (N, classes).

    The configuration is cnnx's own: the beginning of the paper's table 1 without the stride of the stem. It
    has a 3x3 convolution with 32 maps, six separable convolutions with up to 256 maps at 32, 16 and 8 pixels,
    global average pooling, and a linear layer. BatchNorm and ReLU follow both the depthwise and the pointwise
    convolutions (figure 3). With 100 classes, the network has 228,772 parameters and 20,890,624 MACs.
    """
    return _separable(SMALL, classes, stride=1)


def _separable(table: tuple[tuple[int, int], ...], classes: int, *, stride: int) -> nn.Module:
    """A convolution of this stride, then separable convolutions, the mean of each map, and a linear layer."""
    layers = OrderedDict[str, nn.Module](conv1=_conv_bn_relu(3, 32, 3, stride=stride))
    channels = 32
    for number, (outputs, step) in enumerate(table, start=2):
        layers[f"depthwise{number}"] = _conv_bn_relu(channels, channels, 3, stride=step, groups=channels)
        layers[f"pointwise{number}"] = _conv_bn_relu(channels, outputs, 1)
        channels = outputs
    layers.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes))
    return nn.Sequential(layers)


class _Bottleneck(nn.Module):
    """Inverted residual: wide in the middle, linear at its narrow end, where the shortcut is added."""

    def __init__(self, channels: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        widen = [_conv_bn_relu6(channels, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            _conv_bn_relu6(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = stride == 1 and channels == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the bottleneck's output, plus its input if the shapes are equal."""
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


def _conv_bn_relu6(
    channels: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


def _conv_bn_relu(
    channels: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)))
