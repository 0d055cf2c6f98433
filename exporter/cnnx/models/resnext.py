"""ResNeXt (Xie, Girshick, Dollár, Tu, He: Aggregated Residual Transformations for Deep Neural Networks,
arXiv:1611.05431, table 1): bottlenecks with a grouped 3x3 convolution.
"""

from __future__ import annotations

from torch import nn

from cnnx.models import choose
from cnnx.models.resnet import BOTTLENECKS, Bottleneck, imagenet_stages


def resnext(*, depth: int = 50, cardinality: int = 32, width: int = 4, classes: int = 1000) -> nn.Module:
    """ResNeXt: (N, 3, 224, 224) -> logits (N, classes).

    The stages are those of ResNet, with 256, 512, 1,024 and 2,048 maps. The bottlenecks of the first stage
    have cardinality x width inner maps, which double in each further stage. With 1,000 classes:

    depth  cardinality x width  parameters            MACs
    50     32x4                 25,028,904    4,230,479,872
    101    32x8                 88,791,336   16,414,015,488
    101    64x4                 83,455,272   15,460,270,080

    Parameter names and arithmetic are those of torchvision's `resnext` networks: the 3x3 convolution has the
    stride, as in the authors' code.

    Args:
        depth: 50, 101 or 152.
        cardinality: groups of the 3x3 convolution.
        width: maps per group in the first stage; use a multiple of 4 for INT8.
        classes: length of the logits.

    Raises:
        RecipeError: the depth is not 50, 101 or 152.
    """
    counts = choose("depth", depth, BOTTLENECKS)

    def bottleneck(channels: int, base: int, stride: int) -> nn.Module:
        inner = cardinality * width * base // 64
        return Bottleneck(channels, 4 * base, inner=inner, strides=(1, stride), groups=cardinality)

    return imagenet_stages(bottleneck, counts, 4, classes)
