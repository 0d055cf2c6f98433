"""EfficientNet-Lite (github.com/tensorflow/tpu, models/official/efficientnet/lite): EfficientNet (Tan, Le,
arXiv:1905.11946, table 1) for integer arithmetic, without squeeze-and-excitation and with ReLU6.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from cnnx.models import choose

# Blocks, kernel, stride, expansion and channels of each stage of Lite0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Factors of channels and of blocks.
VARIANTS = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
STEM, HEAD = 32, 1280  # of every variant


def efficientnet_lite(*, classes: int = 1000, variant: str = "lite0", padding: str = "same") -> nn.Module:
    """EfficientNet-Lite: (N, 3, side, side) -> logits (N, classes).

    With 1,000 classes and the official sides:

    variant  side  parameters  MACs
    lite0    224    4,652,008    385,187,552
    lite1    240    5,416,680    600,185,232
    lite2    260    6,092,072    859,736,272
    lite3    280    8,197,096  1,383,321,872
    lite4    300   13,006,568  2,553,034,336

    A 3x3/2 stem with 32 maps, seven stages of inverted bottlenecks (see `STAGES`), a 1x1 convolution with
    1280 maps, the mean of each map, and a linear layer. A larger variant multiplies the channels of the
    stages, rounded to a multiple of 8, and the blocks of all but the first and the last stage, rounded up.
    ReLU6 follows every BatchNorm but a block's last.

    Args:
        classes: length of the logits.
        variant: "lite0" to "lite4".
        padding: "same" pads as TensorFlow does, one pixel more at the right and the bottom where the padding
            is odd, as the official weights need. "symmetric" and a smaller epsilon belong to the weights
            that timm trained.

    Names are those of timm, whose `tf_efficientnet_lite0` has padding "same" and `efficientnet_lite0` has
    "symmetric".

    Raises:
        RecipeError: the variant or the padding is unknown.
    """
    width, depth = choose("variant", variant, VARIANTS)
    same = choose("padding", padding, {"same": True, "symmetric": False})
    conv = _SameConv if same else nn.Conv2d
    stages = []
    channels = STEM
    for number, (blocks, kernel, stride, expansion, outputs) in enumerate(STAGES):
        outputs = scaled(outputs, width)
        repeats = blocks if number in (0, len(STAGES) - 1) else math.ceil(blocks * depth)
        stage = []
        for index in range(repeats):
            stage.append(_Block(conv, channels, outputs, kernel, stride if index == 0 else 1, expansion))
            channels = outputs
        stages.append(nn.Sequential(*stage))
    layers = OrderedDict[str, nn.Module](
        conv_stem=conv(3, STEM, 3, 2, padding=1, bias=False),
        bn1=nn.BatchNorm2d(STEM),
        act1=nn.ReLU6(inplace=True),
        blocks=nn.Sequential(*stages),
        conv_head=nn.Conv2d(channels, HEAD, 1, bias=False),
        bn2=nn.BatchNorm2d(HEAD),
        act2=nn.ReLU6(inplace=True),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(HEAD, classes),
    )
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and same:
            module.eps = 1e-3  # TensorFlow's
    return model


def scaled(channels: int, factor: float) -> int:
    """Return the channels times a factor, as a multiple of 8 that is at most 10 % below."""
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class _Block(nn.Module):
    """Inverted bottleneck: 1x1 expansion if there is one, depthwise convolution, 1x1 projection."""

    def __init__(
        self, conv: type[nn.Conv2d], channels: int, outputs: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = channels * expansion
        depthwise = conv(hidden, hidden, kernel, stride, padding=kernel // 2, groups=hidden, bias=False)
        layers = [
            ("conv_dw", depthwise, hidden),
            ("conv_pw", nn.Conv2d(hidden, outputs, 1, bias=False), outputs),
        ]
        if expansion > 1:
            expand = nn.Conv2d(channels, hidden, 1, bias=False)
            layers = [("conv_pw", expand, hidden), layers[0], ("conv_pwl", layers[1][1], outputs)]
        last = len(layers)
        self.layers = []
        for number, (name, layer, width) in enumerate(layers, start=1):
            self.add_module(name, layer)
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
            self.layers += [name, f"bn{number}"]
            if number < last:
                self.add_module(f"act{number}", nn.ReLU6(inplace=True))
                self.layers.append(f"act{number}")
        self.adds = stride == 1 and channels == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, plus its input if the shapes are equal."""
        y = x
        for name in self.layers:
            y = self.get_submodule(name)(y)
        return x + y if self.adds else y


class _SameConv(nn.Conv2d):
    """Convolution with TensorFlow's padding "SAME": the output has ceil(side / stride) pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the padded input."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for side in (x.shape[-1], x.shape[-2]):
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        if pads == [kernel // 2] * 4:
            return super().forward(x)
        return functional.conv2d(
            functional.pad(x, pads), self.weight, self.bias, self.stride, groups=self.groups
        )
