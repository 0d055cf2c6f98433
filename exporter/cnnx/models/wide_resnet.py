"""Wide ResNet (Zagoruyko, Komodakis: Wide Residual Networks, arXiv:1605.07146) for ImageNet: bottlenecks with
more inner maps.
"""

from __future__ import annotations

from torch import nn

from cnnx.models import choose
from cnnx.models.resnet import BOTTLENECKS, Bottleneck, imagenet_stages


def wide_resnet(*, depth: int = 50, factor: int = 2, classes: int = 1000) -> nn.Module:
    """Wide ResNet with bottlenecks: (N, 3, 224, 224) -> logits (N, classes).

    ResNet with `factor` times as many maps in each 3x3 convolution. The inputs and outputs of blocks are as
    wide as in ResNet. With 1,000 classes:

    depth  factor  parameters             MACs
    50     2        68,883,240   11,398,021,120
    101    2       126,886,696   22,753,050,624

    Parameter names and arithmetic are those of torchvision's `wide_resnet` networks.

    Args:
        depth: 50, 101 or 152.
        factor: width relative to ResNet.
        classes: length of the logits.

    Raises:
        RecipeError: the depth is not 50, 101 or 152.
    """
    counts = choose("depth", depth, BOTTLENECKS)

    def bottleneck(channels: int, base: int, stride: int) -> nn.Module:
        return Bottleneck(channels, 4 * base, inner=factor * base, strides=(1, stride))

    return imagenet_stages(bottleneck, counts, 4, classes)
