"""SqueezeNet (Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet: AlexNet-level accuracy with 50x
fewer parameters and <0.5MB model size, arXiv:1602.07360): Fire modules, without fully connected layers.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from cnnx.models import choose

# Fire modules 2 to 9 of table 1: channels of the squeeze layer, and of each of the two expand layers.
FIRES = {
    2: (16, 64),
    3: (16, 64),
    4: (32, 128),
    5: (32, 128),
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}
# Version -> channels and kernel of the first convolution, Fire modules that follow a pool.
VERSIONS = {"1.0": (96, 7, (2, 5, 9)), "1.1": (64, 3, (2, 4, 6))}


def squeezenet(*, version: str = "1.0", classes: int = 1000) -> nn.Module:
    """SqueezeNet: (N, 3, 224, 224) -> logits (N, classes).

    Version 1.0 is that of table 1. Version 1.1, released later by the authors, has a smaller first
    convolution and pools earlier. With 1,000 classes (MACs per image, without biases):

    version  parameters           MACs  fire2, fire3  fire4       fire5       fire6 to fire8  fire9
    1.0       1,248,424    818,924,576  128x54x54     256x54x54   256x27x27   up to 512x27x27  512x13x13
    1.1       1,235,496    349,151,936  128x55x55     256x27x27   256x27x27   up to 512x13x13  512x13x13

    The classifier is a 1x1 convolution with ReLU, averaged over 13x13 positions: logits are never negative.

    Parameter names and values are those of torchvision's `squeezenet1_0` and `squeezenet1_1`. As there, the
    first convolution has no padding and pools round up. Table 1 has 111x111 after the first convolution and
    55x55 after the first pool. That requires images of 227x227, which the authors' Caffe definition reads.
    Images of 224x224 give 109x109 and 54x54, and the sizes of the table from the second pool on. The authors
    pad conv10 by 1; here it is not padded, in agreement with the table's 13x13.

    Raises:
        RecipeError: the version is not 1.0 or 1.1.
    """
    width, kernel, pooled = choose("version", version, VERSIONS)
    features: list[nn.Module] = [nn.Conv2d(3, width, kernel, stride=2), nn.ReLU(inplace=True)]
    channels = width
    for number, (squeeze, expand) in FIRES.items():
        if number in pooled:
            features.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
        features.append(Fire(channels, squeeze, expand))
        channels = 2 * expand
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            classifier=nn.Sequential(
                nn.Dropout(0.5),
                nn.Conv2d(channels, classes, 1),
                nn.ReLU(inplace=True),
                nn.AdaptiveAvgPool2d(1),
            ),
            flatten=nn.Flatten(),
        )
    )


class Fire(nn.Module):
    """Figure 1: a 1x1 squeeze layer, then parallel 1x1 and 3x3 expand layers, concatenated."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> (N, 2 * expand, H, W)."""
        x = self.squeeze_activation(self.squeeze(x))
        one = self.expand1x1_activation(self.expand1x1(x))
        three = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat((one, three), 1)
