"""GoogLeNet (Szegedy et al.: Going Deeper with Convolutions, arXiv:1409.4842, figures 2 and 3 and table 1):
parallel convolutions of several sizes, with 1x1 convolutions that reduce their cost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Table 1 of the paper. Each module reads the number of channels that its predecessor writes.
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

# The modules of `small_googlenet_bn`, in the same format.
SMALL_INCEPTIONS = {
    "3a": (32,     16,         16,  32,         16,  16,        16),
    "3b": (80,     32,         32,  48,         16,  16,        16),
    "4a": (112,    48,         32,  64,         16,  32,        32),
    "4b": (176,    64,         48,  96,         16,  48,        32),
    "5a": (240,    96,         64, 128,         16,  48,        48),
}  # fmt: skip


def googlenet(*, auxiliary: bool = False, classes: int = 1000) -> nn.Module:
    """GoogLeNet as in table 1: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes, it has 6,998,552 parameters and 1,582,671,872 MACs per image (without biases):

    layer  output      parameters           MACs
    conv1  64x112x112       9,472    118,013,952  7x7/2; then pool to 56x56, response normalization
    conv2  192x56x56      114,944    359,661,568  1x1, 3x3; then response normalization, pool to 28x28
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

    The operations in table 1 match its filters in all rows but two, conv1 (34 M there) and 5a (54 M there).
    The rows of the table therefore add up to 1.50 G.

    The paper does not state the parameters of the response normalization. Those of Caffe's bvlc_googlenet are
    used: k = 1, n = 5, alpha = 1e-4 divided by n, beta = 0.75. 3x3/2 pools round up; otherwise 112 would give
    55. torchvision's `googlenet` is a different network: `googlenet_bn`.

    Args:
        auxiliary: add the two side networks of section 5, on 4a and 4d. The network then returns
            `GoogLeNetOutputs` in training mode, and only logits in evaluation mode. It has 13,378,280
            parameters, of which `cnnx show` counts those that run in evaluation mode.
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
    """GoogLeNet with BatchNorm, for torchvision's weights: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes, it has 6,624,904 parameters and 1,498,376,192 MACs per image (without biases).

    Differences from table 1: BatchNorm replaces biases and response normalization; the "5x5" convolutions are
    3x3 (a mistake in the code that trained the published weights); the fourth pool is 2x2.

    Parameter names and values are those of torchvision's `googlenet`. The auxiliary heads are left out
    because they are used only in training, and `transform_input` because it belongs to the preprocessing.
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
    """Small GoogLeNet with BatchNorm for images of 32 x 32: (N, 3, 32, 32) -> logits (N, classes).

    The configuration is cnnx's own, not from a paper: two 3x3 convolutions with 32 maps at 32 pixels, then
    modules 3a and 3b at 16, 4a and 4b at 8 and 5a at 4 pixels, with true 5x5 convolutions and 2x2 pools in
    between. With 100 classes, the network has 366,756 parameters and 31,788,288 MACs.
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
    """Convolution with bias, then ReLU; padded so that stride 1 keeps height and width."""
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
        channels: input channels.
        filters: output channels.
        kernel: side, or height and width.
        stride: stride of the convolution.
        valid: no padding (V in the figures of Inception-v4); otherwise stride 1 keeps height and width.
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
    """Parallel modules: all read the same input, and their outputs are concatenated along the channels."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, sum of the branches' channels, H', W')."""
        return torch.cat([branch(x) for branch in self.children()], 1)


class NaiveInception(Branches):
    """Figure 2a: 1x1, 3x3, 5x5 convolutions and a 3x3 max pool, (N, C, H, W) -> (N, filters + C, H, W).

    The cost is C * (conv1x1 + 9 * conv3x3 + 25 * conv5x5) MACs per position. With 128, 192 and 96 filters on
    256x28x28 that is 854,196,224. The output then has 672 channels, since the pool passes on all 256.
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

    (N, C, H, W) -> (N, conv1x1 + conv3x3 + conv5x5 + projection, H, W). The cost in MACs per position is
    C * (conv1x1 + reduce3x3 + reduce5x5 + projection) + 9 * reduce3x3 * conv3x3 + 25 * reduce5x5 * conv5x5.
    The example of figure 2a, with 64 for the three new widths, needs 271,351,808.

    Args:
        channels: C. This and the next six arguments are a row of `INCEPTIONS`.
        conv1x1: filters of the 1x1 convolution.
        reduce3x3: filters of the 1x1 convolution before the 3x3.
        conv3x3: filters of the 3x3 convolution.
        reduce5x5: filters of the 1x1 convolution before the 5x5.
        conv5x5: filters of the 5x5 convolution.
        projection: filters of the 1x1 convolution after the pool.
        conv: builds a convolution with activation from input channels, filters and kernel side.
        large: side of the kernel that is 5 in the paper.
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
    """Side network of section 5: (N, channels, 14, 14) -> logits (N, classes)."""

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
    """Logits (N, classes) of the network and of its two side networks."""

    logits: Tensor
    aux4a: Tensor
    aux4d: Tensor


class GoogLeNet(nn.Sequential):
    """Sequential layers. An `AuxiliaryHead` among them is a side output, used only in training mode."""

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """(N, 3, 224, 224) -> logits (N, classes); in training mode also those of the side outputs."""
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
