"""LeNet-5 (LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition,
Proceedings of the IEEE 86(11), 1998, section II-B), in the original and in the modern form.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from cnnx.errors import RecipeError


def lenet5(*, classes: int = 10) -> nn.Module:
    """LeNet-5 for gray images of 32 x 32 pixels: (N, 1, 32, 32) -> logits (N, classes).

    With ten classes, the network has 61,706 parameters and 416,520 MACs per image (without biases).

    layer  output     parameters                            MACs
    conv1  6x28x28     25*1*6 + 6         =    156       117,600
    pool1  6x14x14
    conv2  16x10x10    25*6*16 + 16       =  2,416       240,000
    pool2  16x5x5
    fc1    120         400*120 + 120      = 48,120        48,000
    fc2    84          120*84 + 84        = 10,164        10,080
    fc3    10          84*10 + 10         =    850           840

    Differences from the paper's network, which is `lenet5_1998`:

    * C3 (conv2) reads all six maps. The paper's table of connections drops 36 of 96 pairs.
    * S2 and S4 take the maximum. The paper takes a sum with a trained coefficient and bias, then a sigmoid.
    * ReLU replaces the scaled tanh.
    * A linear layer with softmax replaces the Euclidean RBF units.

    Maximum and ReLU replace average and tanh because "modern" LeNets use them, and because both commute with
    INT8 quantization: TensorRT can then keep INT8 between layers.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * 5 * 5, 120),
            relu3=nn.ReLU(inplace=True),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(inplace=True),
            fc3=nn.Linear(84, classes),
        )
    )


# Table I of the paper: the maps of S2 that each map of C3 reads.
CONNECTIONS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# Seven columns, twelve rows. Redrawn, because the paper's bitmaps exist only in the print of its figure 3.
_GLYPHS = """
.#####.   ...##..   .#####.   .#####.   ##...##   #######   ..####.   #######   .#####.   .#####.
#######   ..###..   #######   #######   ##...##   #######   .#####.   #######   #######   #######
##...##   .####..   ##...##   ##...##   ##...##   ##.....   ###....   .....##   ##...##   ##...##
##...##   ##.##..   .....##   .....##   ##...##   ##.....   ##.....   ....##.   ##...##   ##...##
##...##   ...##..   .....##   .....##   ##...##   ######.   ##.....   ....##.   ##...##   ##...##
##...##   ...##..   ....##.   ..####.   #######   #######   ######.   ...##..   .#####.   #######
##...##   ...##..   ...##..   ..####.   #######   .....##   #######   ...##..   .#####.   .######
##...##   ...##..   ..##...   .....##   .....##   .....##   ##...##   ..##...   ##...##   .....##
##...##   ...##..   .##....   .....##   .....##   .....##   ##...##   ..##...   ##...##   .....##
##...##   ...##..   ##.....   ##...##   .....##   ##...##   ##...##   .##....   ##...##   ....###
#######   #######   #######   #######   .....##   #######   #######   .##....   #######   .#####.
.#####.   #######   #######   .#####.   .....##   .#####.   .#####.   .##....   .#####.   .####..
"""


def lenet5_1998(*, classes: int = 10) -> nn.Module:
    """LeNet-5 as in the paper: (N, 1, 32, 32) -> logits (N, 10), the negative distance to each digit's code.

    layer  output     trainable parameters             connections
    C1     6x28x28    6 * (25 + 1)           =    156  122,304
    S2     6x14x14    6 * (1 + 1)            =     12    5,880
    C3     16x10x10   60 * 25 + 16           =  1,516  151,600
    S4     16x5x5     16 * (1 + 1)           =     32    2,000
    C5     120        120 * (16 * 25 + 1)    = 48,120   48,120
    F6     84         84 * (120 + 1)         = 10,164   10,164
    output 10         none: fixed codes                    840
    total             60,000                           340,908

    A connection is a product or a bias, as counted in the paper. C3 connects 60 of the 96 pairs of maps. It
    is computed as one convolution with zeros for the other pairs, for which every runtime has a kernel. The
    total is 415,680 MACs, of which 90,000 multiply by zero. A subsampling map is the sum of four neighbours,
    times a coefficient, plus a bias. The squashing function is 1.7159 tanh(2/3 a). The paper's output is the
    squared distance between F6 and a fixed code of 84 values of +1 or -1, the class's image of 7 x 12 pixels.
    Here the output is its negative, so that the largest value wins. torchvision does not have this network.

    Raises:
        RecipeError: the number of classes is not ten; the codes exist only for digits.
    """
    if classes != 10:
        raise RecipeError(
            f"invalid number of classes {classes}: the 1998 network has ten outputs, one per digit",
            where="model.classes",
            hint="set model.classes to 10, or use the definition lenet5",
        )
    return nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(1, 6, 5),
            squash1=ScaledTanh(),
            s2=Subsampling(6),
            squash2=ScaledTanh(),
            c3=ConnectedConv2d(),
            squash3=ScaledTanh(),
            s4=Subsampling(16),
            squash4=ScaledTanh(),
            c5=nn.Conv2d(16, 120, 5),
            squash5=ScaledTanh(),
            flatten=nn.Flatten(),
            f6=nn.Linear(120, 84),
            squash6=ScaledTanh(),
            output=DigitCodes(),
        )
    )


class ScaledTanh(nn.Module):
    """The paper's squashing function (appendix A), which maps +1 to +1 and -1 to -1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """S2 and S4: sums of 2 x 2 neighbours, with a trained coefficient and bias per map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((maps,), 0.25))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, maps, H, W) -> (N, maps, H / 2, W / 2)."""
        sums_of_means = 4 * self.coefficient  # the sum of four values is four times their mean
        return functional.avg_pool2d(x, 2) * sums_of_means.reshape(-1, 1, 1) + self.bias.reshape(-1, 1, 1)


class ConnectedConv2d(nn.Module):
    """C3: a 5 x 5 convolution in which each map reads only the maps listed in `CONNECTIONS`."""

    def __init__(self) -> None:
        super().__init__()
        pairs = [(target, source) for target, sources in enumerate(CONNECTIONS) for source in sources]
        self._pairs = pairs
        self.weight = nn.Parameter(torch.empty(len(pairs), 5, 5).uniform_(-0.2, 0.2))
        self.bias = nn.Parameter(torch.zeros(len(CONNECTIONS)))

    def kernel(self) -> torch.Tensor:
        """Return the full kernel, (16, 6, 5, 5), with zeros for pairs that are not connected."""
        targets, sources = zip(*self._pairs, strict=True)
        kernel = self.weight.new_zeros(len(CONNECTIONS), 6, 5, 5)
        return kernel.index_put((torch.tensor(targets), torch.tensor(sources)), self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 6, 14, 14) -> (N, 16, 10, 10)."""
        return functional.conv2d(x, self.kernel(), self.bias)


class DigitCodes(nn.Module):
    """Output layer: the negative squared distance to each digit's code."""

    def __init__(self) -> None:
        super().__init__()
        rows = [line.split() for line in _GLYPHS.split("\n") if line]
        digits = ["".join(row[digit] for row in rows) for digit in range(10)]
        codes = torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits])
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 84) -> (N, 10)."""
        codes: torch.Tensor = self.get_buffer("codes")
        return -(x.unsqueeze(1) - codes).square().sum(dim=2)
