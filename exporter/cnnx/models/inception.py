"""Inception-v3 (Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer
Vision, arXiv:1512.00567, table 1 and figures 5, 6, 7 and 10) and Inception-v4 (Szegedy, Ioffe, Vanhoucke,
Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, arXiv:1602.07261,
figures 3 to 9): GoogLeNet's modules with large NxN convolutions factorized into 1xN and Nx1.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from cnnx.models.googlenet import Branches
from cnnx.models.googlenet import conv_bn_relu as conv


def inception_v3(*, classes: int = 1000) -> nn.Module:
    """Inception-v3: (N, 3, 299, 299) -> logits (N, classes).

    With 1,000 classes, it has 23,834,568 parameters and 5,713,216,096 MACs per image (without biases):

    layers              output                     figure
    Conv2d_1a .. 2b     64x147x147                 3x3/2, 3x3, 3x3 padded; then a 3x3/2 pool to 73x73
    Conv2d_3b, 4a       192x71x71                  1x1, 3x3; then a 3x3/2 pool to 35x35
    Mixed_5b, 5c, 5d    256x35x35, 2 * 288x35x35   5
    Mixed_6a            768x17x17                  10, from 35x35 to 17x17
    Mixed_6b .. 6e      768x17x17                  6
    Mixed_7a            1280x8x8                   10, from 17x17 to 8x8
    Mixed_7b, 7c        2048x8x8                   7
    fc                  classes                    after the mean of each map

    It follows the published weights, which differ from the paper in two points. After the first pool, table 1
    has three 3x3 convolutions, the second with stride 2; here there are a 1x1 and a 3x3 convolution and a
    3x3/2 pool. Figure 5 factorizes every 5x5 convolution; here one is kept. The average pools inside the
    modules include the zeros of the border, unlike those of Inception-v4.

    Parameter names and values are those of torchvision's `inception_v3`. AuxLogits is left out because it is
    used only in training, and `transform_input` because it belongs to the preprocessing.
    """
    return nn.Sequential(
        OrderedDict(
            Conv2d_1a_3x3=conv(3, 32, 3, stride=2, valid=True),
            Conv2d_2a_3x3=conv(32, 32, 3, valid=True),
            Conv2d_2b_3x3=conv(32, 64, 3),
            maxpool1=nn.MaxPool2d(3, stride=2),
            Conv2d_3b_1x1=conv(64, 80, 1),
            Conv2d_4a_3x3=conv(80, 192, 3, valid=True),
            maxpool2=nn.MaxPool2d(3, stride=2),
            Mixed_5b=Module35(192, projection=32),
            Mixed_5c=Module35(256, projection=64),
            Mixed_5d=Module35(288, projection=64),
            Mixed_6a=Reduction35(),
            Mixed_6b=Module17(width=128),
            Mixed_6c=Module17(width=160),
            Mixed_6d=Module17(width=160),
            Mixed_6e=Module17(width=192),
            Mixed_7a=Reduction17(),
            Mixed_7b=Module8(1280),
            Mixed_7c=Module8(2048),
            avgpool=nn.AdaptiveAvgPool2d(1),
            dropout=nn.Dropout(0.5),
            flatten=nn.Flatten(),
            fc=nn.Linear(2048, classes),
        )
    )


def inception_v4(*, classes: int = 1000) -> nn.Module:
    """Inception-v4: (N, 3, 299, 299) -> logits (N, classes).

    With 1,000 classes, it has 42,679,816 parameters and 12,253,974,624 MACs per image (without biases):

    features  output        figure
    0 to 5    384x35x35     3, the stem
    6 to 9    384x35x35     4, Inception-A
    10        1024x17x17    7, Reduction-A with (k, l, m, n) = (192, 224, 256, 384)
    11 to 17  1024x17x17    5, Inception-B
    18        1536x8x8      8, Reduction-B
    19 to 21  1536x8x8      6, Inception-C

    It follows the published weights, which differ from the paper in two points. The last convolution of the
    stem has stride 2, as the sizes in figure 3 require. Figure 5 has two 1x7 convolutions in a row; here they
    are 1x7 and 7x1. The average pools inside the modules exclude the zeros of the border, unlike those of
    Inception-v3.

    Parameter names and values are those of timm's `inception_v4`.
    """
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                *_stem(),
                *(_inception_a() for _ in range(4)),
                _reduction_a(),
                *(_inception_b() for _ in range(7)),
                _reduction_b(),
                *(InceptionC() for _ in range(3)),
            ),
            global_pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head_drop=nn.Dropout(0.2),
            last_linear=nn.Linear(1536, classes),
        )
    )


def _through(x: Tensor, *layers: nn.Module) -> Tensor:
    """Apply the layers to x, one after another."""
    for layer in layers:
        x = layer(x)
    return x


class Module35(nn.Module):
    """Figure 5 of Inception-v3, on 35 x 35: 1x1, 5x5, two 3x3 instead of a 5x5, a pool."""

    def __init__(self, channels: int, *, projection: int) -> None:
        super().__init__()
        self.branch1x1 = conv(channels, 64, 1)
        self.branch5x5_1 = conv(channels, 48, 1)
        self.branch5x5_2 = conv(48, 64, 5)
        self.branch3x3dbl_1 = conv(channels, 64, 1)
        self.branch3x3dbl_2 = conv(64, 96, 3)
        self.branch3x3dbl_3 = conv(96, 96, 3)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = conv(channels, projection, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 224 + projection, H, W)."""
        branches = [
            self.branch1x1(x),
            _through(x, self.branch5x5_1, self.branch5x5_2),
            _through(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
            _through(x, self.pool, self.branch_pool),
        ]
        return torch.cat(branches, 1)


class Reduction35(nn.Module):
    """Figure 10 of Inception-v3, from 35 x 35 to 17 x 17: convolutions and a pool of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = conv(288, 384, 3, stride=2, valid=True)
        self.branch3x3dbl_1 = conv(288, 64, 1)
        self.branch3x3dbl_2 = conv(64, 96, 3)
        self.branch3x3dbl_3 = conv(96, 96, 3, stride=2, valid=True)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 288, 35, 35) -> (N, 768, 17, 17)."""
        branches = [
            self.branch3x3(x),
            _through(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
            self.pool(x),
        ]
        return torch.cat(branches, 1)


class Module17(nn.Module):
    """Figure 6 of Inception-v3, on 17 x 17: 7x7 as 1x7 and 7x1, once and twice."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.branch1x1 = conv(768, 192, 1)
        self.branch7x7_1 = conv(768, width, 1)
        self.branch7x7_2 = conv(width, width, (1, 7))
        self.branch7x7_3 = conv(width, 192, (7, 1))
        self.branch7x7dbl_1 = conv(768, width, 1)
        self.branch7x7dbl_2 = conv(width, width, (7, 1))
        self.branch7x7dbl_3 = conv(width, width, (1, 7))
        self.branch7x7dbl_4 = conv(width, width, (7, 1))
        self.branch7x7dbl_5 = conv(width, 192, (1, 7))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 768, H, W) -> (N, 768, H, W)."""
        twice = (self.branch7x7dbl_2, self.branch7x7dbl_3, self.branch7x7dbl_4, self.branch7x7dbl_5)
        branches = [
            self.branch1x1(x),
            _through(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3),
            _through(x, self.branch7x7dbl_1, *twice),
            _through(x, self.pool, self.branch_pool),
        ]
        return torch.cat(branches, 1)


class Reduction17(nn.Module):
    """Figure 10 of Inception-v3 again, from 17 x 17 to 8 x 8, with a factorized 7x7 before one stride."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = conv(768, 192, 1)
        self.branch3x3_2 = conv(192, 320, 3, stride=2, valid=True)
        self.branch7x7x3_1 = conv(768, 192, 1)
        self.branch7x7x3_2 = conv(192, 192, (1, 7))
        self.branch7x7x3_3 = conv(192, 192, (7, 1))
        self.branch7x7x3_4 = conv(192, 192, 3, stride=2, valid=True)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 768, 17, 17) -> (N, 1280, 8, 8)."""
        seven = (self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3, self.branch7x7x3_4)
        branches = [_through(x, self.branch3x3_1, self.branch3x3_2), _through(x, *seven), self.pool(x)]
        return torch.cat(branches, 1)


class Module8(nn.Module):
    """Figure 7 of Inception-v3, on 8 x 8: 3x3 as parallel 1x3 and 3x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch1x1 = conv(channels, 320, 1)
        self.branch3x3_1 = conv(channels, 384, 1)
        self.branch3x3_2a = conv(384, 384, (1, 3))
        self.branch3x3_2b = conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = conv(channels, 448, 1)
        self.branch3x3dbl_2 = conv(448, 384, 3)
        self.branch3x3dbl_3a = conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = conv(384, 384, (3, 1))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 2048, H, W)."""
        once = self.branch3x3_1(x)
        twice = _through(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            _through(x, self.pool, self.branch_pool),
        ]
        return torch.cat(branches, 1)


def _stem() -> tuple[nn.Module, ...]:
    """Figure 3 of Inception-v4: (N, 3, 299, 299) -> (N, 384, 35, 35)."""
    return (
        conv(3, 32, 3, stride=2, valid=True),
        conv(32, 32, 3, valid=True),
        conv(32, 64, 3),
        Branches(maxpool=nn.MaxPool2d(3, stride=2), conv=conv(64, 96, 3, stride=2, valid=True)),
        Branches(
            branch0=nn.Sequential(conv(160, 64, 1), conv(64, 96, 3, valid=True)),
            branch1=nn.Sequential(
                conv(160, 64, 1), conv(64, 64, (1, 7)), conv(64, 64, (7, 1)), conv(64, 96, 3, valid=True)
            ),
        ),
        Branches(conv=conv(192, 192, 3, stride=2, valid=True), maxpool=nn.MaxPool2d(3, stride=2)),
    )


def _mean() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def _inception_a() -> nn.Module:
    """Figure 4 of Inception-v4: (N, 384, 35, 35) -> (N, 384, 35, 35)."""
    return Branches(
        branch0=conv(384, 96, 1),
        branch1=nn.Sequential(conv(384, 64, 1), conv(64, 96, 3)),
        branch2=nn.Sequential(conv(384, 64, 1), conv(64, 96, 3), conv(96, 96, 3)),
        branch3=nn.Sequential(_mean(), conv(384, 96, 1)),
    )


def _reduction_a() -> nn.Module:
    """Figure 7 of Inception-v4: (N, 384, 35, 35) -> (N, 1024, 17, 17)."""
    return Branches(
        branch0=conv(384, 384, 3, stride=2, valid=True),
        branch1=nn.Sequential(conv(384, 192, 1), conv(192, 224, 3), conv(224, 256, 3, stride=2, valid=True)),
        branch2=nn.MaxPool2d(3, stride=2),
    )


def _inception_b() -> nn.Module:
    """Figure 5 of Inception-v4: (N, 1024, 17, 17) -> (N, 1024, 17, 17)."""
    return Branches(
        branch0=conv(1024, 384, 1),
        branch1=nn.Sequential(conv(1024, 192, 1), conv(192, 224, (1, 7)), conv(224, 256, (7, 1))),
        branch2=nn.Sequential(
            conv(1024, 192, 1),
            conv(192, 192, (7, 1)),
            conv(192, 224, (1, 7)),
            conv(224, 224, (7, 1)),
            conv(224, 256, (1, 7)),
        ),
        branch3=nn.Sequential(_mean(), conv(1024, 128, 1)),
    )


def _reduction_b() -> nn.Module:
    """Figure 8 of Inception-v4: (N, 1024, 17, 17) -> (N, 1536, 8, 8)."""
    return Branches(
        branch0=nn.Sequential(conv(1024, 192, 1), conv(192, 192, 3, stride=2, valid=True)),
        branch1=nn.Sequential(
            conv(1024, 256, 1),
            conv(256, 256, (1, 7)),
            conv(256, 320, (7, 1)),
            conv(320, 320, 3, stride=2, valid=True),
        ),
        branch2=nn.MaxPool2d(3, stride=2),
    )


class InceptionC(nn.Module):
    """Figure 6 of Inception-v4: 3x3 as parallel 1x3 and 3x1."""

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = conv(1536, 256, 1)
        self.branch1_0 = conv(1536, 384, 1)
        self.branch1_1a = conv(384, 256, (1, 3))
        self.branch1_1b = conv(384, 256, (3, 1))
        self.branch2_0 = conv(1536, 384, 1)
        self.branch2_1 = conv(384, 448, (3, 1))
        self.branch2_2 = conv(448, 512, (1, 3))
        self.branch2_3a = conv(512, 256, (1, 3))
        self.branch2_3b = conv(512, 256, (3, 1))
        self.branch3 = nn.Sequential(_mean(), conv(1536, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1536, 8, 8) -> (N, 1536, 8, 8)."""
        once = self.branch1_0(x)
        twice = _through(x, self.branch2_0, self.branch2_1, self.branch2_2)
        branches = [
            self.branch0(x),
            self.branch1_1a(once),
            self.branch1_1b(once),
            self.branch2_3a(twice),
            self.branch2_3b(twice),
            self.branch3(x),
        ]
        return torch.cat(branches, 1)
