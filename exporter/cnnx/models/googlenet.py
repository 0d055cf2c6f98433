"""GoogLeNet (Szegedy et al.: Going Deeper with Convolutions, arXiv:1409.4842, figures 2 and 3 and table 1):
convolutions of several sizes side by side on one input, with 1x1 convolutions that make them affordable.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Table 1 of the paper. The depth that a module reads is the one that its predecessor writes.
INCEPTIONS = {
    #      reads  1x1  3x3 reduce, 3x3  5x5 reduce, 5x5  pool proj
    "3a": (192,    64,         96, 128,         16,  32,        32),
    "3b": (256,   128,        128, 192,         32,  96,        64),
    "4a": (480,   192,         96, 208,         16,  48,        64),
    "4b": (512,   160,        112, 224,         24,  64,        64),
    "4c": (512,   128,        128, 256,         24,  64,        64),
    "4d": (512,   112,        144, 288,         32,  64,        64),
    "4e": (528,   256,        160, 320,         32, 128,       128),
    "5a": (832,   256,        160, 320,         32, 128,       128),
    "5b": (832,   384,        192, 384,         48, 128,       128),
}  # fmt: skip

# Of `small_googlenet_bn`, laid out likewise.
SMALL_INCEPTIONS = {
    "3a": (32,     16,         16,  32,         16,  16,        16),
    "3b": (80,     32,         32,  48,         16,  16,        16),
    "4a": (112,    48,         32,  64,         16,  32,        32),
    "4b": (176,    64,         48,  96,         16,  48,        32),
    "5a": (240,    96,         64, 128,         16,  48,        48),
}  # fmt: skip


def googlenet(*, auxiliary: bool = False, classes: int = 1000) -> nn.Module:
    """GoogLeNet as in table 1: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes 6,998,552 parameters and 1,582,671,872 multiply-adds a picture (biases excluded):

    layer  output      parameters  multiply-adds
    conv1  64x112x112       9,472    118,013,952  7x7/2; then pool to 56x56, response normalisation
    conv2  192x56x56      114,944    359,661,568  1x1, 3x3; then response normalisation, pool to 28x28
    3a     256x28x28      163,696    128,049,152
    3b     480x28x28      388,736    304,267,264  then pool to 14x14
    4a     512x14x14      376,176     73,608,192
    4b     512x14x14      449,160     87,908,352
    4c     512x14x14      510,104     99,850,240
    4d     528x14x14      605,376    118,515,712
    4e     832x14x14      868,352    169,996,288  then pool to 7x7
    5a     832x7x7      1,043,456     51,079,168
    5b     1024x7x7     1,444,080     70,697,984  then the mean of each map
    fc     classes      1,025,000      1,024,000

    The operations in table 1 follow from its filters in all rows but two, conv1 (34 M there) and 5a (54 M
    there); its rows therefore add up to 1.50 G.

    The parameters of the response normalisation are those of Caffe's bvlc_googlenet (k = 1, n = 5,
    alpha = 1e-4 divided by n, beta = 0.75); the paper states none. 3x3/2 pools round up, without which
    112 would give 55. How it differs from torchvision's `googlenet`: that one is `googlenet_bn`.

    Args:
        auxiliary: with the two side networks of section 5, on 4a and 4d; training then gives
            `GoogLeNetOutputs`, evaluation logits alone. 13,378,280 parameters, of which `cnnx show` counts
            those that run in evaluation.
        classes: length of the logits.
    """

    def head(name: str, channels: int) -> dict[str, nn.Module]:
        return {f"aux{name}": AuxiliaryHead(channels, classes=classes)} if auxiliary else {}

    return GoogLeNet(
        OrderedDict(
            conv1=conv_relu(3, 64, 7, stride=2),
            pool1=_halve(),
            norm1=_normalise(),
            conv2_reduce=conv_relu(64, 64, 1),
            conv2=conv_relu(64, 192, 3),
            norm2=_normalise(),
            pool2=_halve(),
            **_inceptions("3a", "3b"),
            pool3=_halve(),
            **_inceptions("4a"),
            **head("4a", 512),
            **_inceptions("4b", "4c", "4d"),
            **head("4d", 528),
            **_inceptions("4e"),
            pool4=_halve(),
            **_inceptions("5a", "5b"),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.4),
            fc=nn.Linear(1024, classes),
        )
    )


def googlenet_bn(*, classes: int = 1000) -> nn.Module:
    """GoogLeNet with BatchNorm, the one that torchvision has weights for: (N, 3, 224, 224) -> (N, classes).

    With 1,000 classes 6,624,904 parameters and 1,498,376,192 multiply-adds a picture (biases excluded).

    How it differs from table 1: BatchNorm stands for biases and response normalisation, the "5x5"
    convolutions are 3x3 (a mistake that the published weights were trained with), the fourth pool is 2x2.

    Parameter names and values are those of torchvision's `googlenet`, without its auxiliary heads, which
    serve training alone, and without `transform_input`, which belongs to the preprocessing.
    """

    def inceptions(*names: str) -> dict[str, nn.Module]:
        return _inceptions(*names, conv=conv_bn_relu, large=3)

    return nn.Sequential(
        OrderedDict(
            conv1=conv_bn_relu(3, 64, 7, stride=2),
            maxpool1=_halve(),
            conv2=conv_bn_relu(64, 64, 1),
            conv3=conv_bn_relu(64, 192, 3),
            maxpool2=_halve(),
            **inceptions("3a", "3b"),
            maxpool3=_halve(),
            **inceptions("4a", "4b", "4c", "4d", "4e"),
            maxpool4=_halve(kernel=2),
            **inceptions("5a", "5b"),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.2),
            fc=nn.Linear(1024, classes),
        )
    )


def small_googlenet_bn(*, classes: int = 100) -> nn.Module:
    """GoogLeNet's way for small pictures, with BatchNorm: (N, 3, 32, 32) -> logits (N, classes).

    Ours, after no paper: two 3x3 convolutions with 32 maps at 32 pixels, then modules 3a and 3b at 16, 4a
    and 4b at 8 and 5a at 4 pixels, with true 5x5 convolutions; 2x2 pools between. With 100 classes 366,756
    parameters and 31,788,288 multiply-adds.
    """

    def inceptions(*names: str) -> dict[str, nn.Module]:
        return _inceptions(*names, rows=SMALL_INCEPTIONS, conv=conv_bn_relu)

    return nn.Sequential(
        OrderedDict(
            conv1=conv_bn_relu(3, 32, 3),
            conv2=conv_bn_relu(32, 32, 3),
            maxpool2=_halve(kernel=2),
            **inceptions("3a", "3b"),
            maxpool3=_halve(kernel=2),
            **inceptions("4a", "4b"),
            maxpool4=_halve(kernel=2),
            **inceptions("5a"),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(320, classes),
        )
    )


def conv_relu(channels: int, filters: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution with bias, ReLU; the border is padded so that stride 1 keeps the grid."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, filters, kernel, stride=stride, padding=kernel // 2),
            relu=nn.ReLU(inplace=True),
        )
    )


def conv_bn_relu(
    channels: int, filters: int, kernel: int | tuple[int, int], *, stride: int = 1, valid: bool = False
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, ReLU.

    Args:
        channels: what it reads.
        filters: what it writes.
        kernel: side, or height and width.
        stride: of the convolution.
        valid: no padding (V in the figures of Inception-v4); else what lets stride 1 keep the grid.
    """
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (0, 0) if valid else (height // 2, width // 2)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, filters, (height, width), stride=stride, padding=padding, bias=False),
            bn=nn.BatchNorm2d(filters, eps=0.001),
            relu=nn.ReLU(inplace=True),
        )
    )


class Branches(nn.Module):
    """Modules side by side: all read the same input, what they give is joined along the channels."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, sum of the branches' channels, H', W')."""
        return torch.cat([branch(x) for branch in self.children()], 1)


class NaiveInception(Branches):
    """Figure 2a: 1x1, 3x3, 5x5 convolutions and a 3x3 maximum, (N, C, H, W) -> (N, filters + C, H, W).

    C * (conv1x1 + 9 * conv3x3 + 25 * conv5x5) multiply-adds a position. With 128, 192 and 96 filters
    on 256x28x28 that is 854,196,224, and the output has 672 channels: the pool hands all 256 on.
    """

    def __init__(self, channels: int, *, conv1x1: int, conv3x3: int, conv5x5: int) -> None:
        super().__init__(
            branch1=conv_relu(channels, conv1x1, 1),
            branch2=conv_relu(channels, conv3x3, 3),
            branch3=conv_relu(channels, conv5x5, 5),
            branch4=nn.MaxPool2d(3, stride=1, padding=1),
        )


class Inception(Branches):
    """Figure 2b: figure 2a with 1x1 convolutions before the 3x3 and the 5x5 and after the pool.

    (N, C, H, W) -> (N, conv1x1 + conv3x3 + conv5x5 + projection, H, W), by
    C * (conv1x1 + reduce3x3 + reduce5x5 + projection) + 9 * reduce3x3 * conv3x3 + 25 * reduce5x5 * conv5x5
    multiply-adds a position. Figure 2a's example with 64 for the three new widths: 271,351,808.

    Args:
        channels: C. This and the next six are a row of `INCEPTIONS`.
        conv1x1: filters; so are the next five.
        reduce3x3: before the 3x3.
        conv3x3: of the 3x3.
        reduce5x5: before the 5x5.
        conv5x5: of the 5x5.
        projection: after the pool.
        conv: a convolution and what follows it, from what it reads, its filters and its kernel.
        large: side of the kernel that the paper has as 5.
    """

    def __init__(
        self,
        channels: int,
        conv1x1: int,
        reduce3x3: int,
        conv3x3: int,
        reduce5x5: int,
        conv5x5: int,
        projection: int,
        *,
        conv: Callable[[int, int, int], nn.Module] = conv_relu,
        large: int = 5,
    ) -> None:
        super().__init__(
            branch1=conv(channels, conv1x1, 1),
            branch2=nn.Sequential(conv(channels, reduce3x3, 1), conv(reduce3x3, conv3x3, 3)),
            branch3=nn.Sequential(conv(channels, reduce5x5, 1), conv(reduce5x5, conv5x5, large)),
            branch4=nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(channels, projection, 1)),
        )


class AuxiliaryHead(nn.Sequential):
    """The side network of section 5: (N, channels, 14, 14) -> logits (N, classes)."""

    def __init__(self, channels: int, *, classes: int) -> None:
        super().__init__(
            OrderedDict(
                pool=nn.AvgPool2d(5, stride=3),
                conv=conv_relu(channels, 128, 1),
                flatten=nn.Flatten(),
                fc1=nn.Linear(128 * 4 * 4, 1024),
                relu=nn.ReLU(inplace=True),
                dropout=nn.Dropout(0.7),
                fc2=nn.Linear(1024, classes),
            )
        )


class GoogLeNetOutputs(NamedTuple):
    """Three times logits (N, classes): the network's own and those of its side networks."""

    logits: Tensor
    aux4a: Tensor
    aux4d: Tensor


class GoogLeNet(nn.Sequential):
    """Layers one after another. An `AuxiliaryHead` among them is a side exit, open in training only."""

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """(N, 3, 224, 224) -> logits (N, classes), in training with those of the side exits if it has any."""
        auxiliary = []
        for layer in self:
            if not isinstance(layer, AuxiliaryHead):
                x = layer(x)
            elif self.training:
                auxiliary.append(layer(x))
        return GoogLeNetOutputs(x, *auxiliary) if auxiliary else x


def _inceptions(
    *names: str,
    rows: Mapping[str, tuple[int, int, int, int, int, int, int]] = INCEPTIONS,
    conv: Callable[[int, int, int], nn.Module] = conv_relu,
    large: int = 5,
) -> dict[str, nn.Module]:
    return {f"inception{name}": Inception(*rows[name], conv=conv, large=large) for name in names}


def _halve(kernel: int = 3) -> nn.Module:
    return nn.MaxPool2d(kernel, stride=2, ceil_mode=True)


def _normalise() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
