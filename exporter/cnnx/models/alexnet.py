"""AlexNet (Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks,
NIPS 2012, section 3.5 and figure 2) and its relatives.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import nn

from cnnx.errors import RecipeError
from cnnx.models import choose

REMOVABLE = ("conv3", "conv4", "fc6", "fc7")


def alexnet(*, towers: int = 2, without: tuple[str, ...] = (), classes: int = 1000) -> nn.Module:
    """AlexNet with two towers, as in the paper, or one, as in lectures: (N, 3, 227, 227) -> (N, classes).

    layer                      output  parameters: 2 towers      1 tower  MACs: 2 towers
    conv1  11x11/4             96x55x55       34,944              34,944     105,415,200
    norm1, pool1 3x3/2         96x27x27
    conv2  5x5, padding 2      256x27x27     307,456             614,656     223,948,800
    norm2, pool2 3x3/2         256x13x13
    conv3  3x3                 384x13x13     885,120             885,120     149,520,384
    conv4  3x3                 384x13x13     663,936           1,327,488     112,140,288
    conv5  3x3                 256x13x13     442,624             884,992      74,760,192
    pool5  3x3/2               256x6x6
    fc6                        4096       37,752,832          37,752,832      37,748,736
    fc7                        4096       16,781,312          16,781,312      16,777,216
    fc8                        classes     4,097,000           4,097,000       4,096,000
    with 1,000 classes                    60,965,224          62,378,344     724,406,816

    With one tower, the network has 1,135,256,096 MACs.

    Two towers: conv2, conv4 and conv5 read only the maps on their own GPU, which is a convolution with two
    groups; conv3 and the linear layers read both. Normalization precedes pooling. One tower: no groups, and
    pooling precedes normalization, as in CaffeNet and in the lecture's table.

    The paper states an input of 224 x 224, which does not give 55 x 55 without padding
    ((224 - 11) / 4 + 1 = 54.25); 227 does. Its response normalization (k = 2, n = 5, alpha = 1e-4, beta =
    0.75) does not divide alpha by n, whereas PyTorch, ONNX and Caffe do. Therefore alpha is 5e-4 here.

    torchvision's `alexnet` is a different network: `alexnet_owt`.

    Args:
        towers: 2 as in the paper, 1 as in the lecture.
        without: layers of `REMOVABLE` to leave out, with their ReLU, for the depth ablations of Zeiler and
            Fergus (arXiv:1311.2901, table 3). The next layer adapts to the size of its new input. With two
            towers: without fc7 44,183,912 parameters and 707,629,600 MACs; without fc6 and fc7 11,551,080 and
            675,000,864; without all four 9,854,568 and 388,420,128.
        classes: length of the logits.

    Raises:
        RecipeError: the number of towers is not 1 or 2, or a layer cannot be left out.
    """
    groups = choose("towers", towers, {1: 1, 2: 2})
    if unknown := [layer for layer in without if layer not in REMOVABLE]:
        raise RecipeError(
            f"{unknown[0]!r} cannot be left out",
            where="model.arguments.without",
            hint=f"choose from: {', '.join(REMOVABLE)}",
        )
    layers = [*_features(groups, without), ("flatten", nn.Flatten()), *_classifier(classes, without)]
    return nn.Sequential(OrderedDict(layers))


def _features(groups: int, without: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    # name, output channels, kernel, stride, padding, groups
    table = (
        ("conv1", 96, 11, 4, 0, 1),
        ("conv2", 256, 5, 1, 2, groups),
        ("conv3", 384, 3, 1, 1, 1),
        ("conv4", 384, 3, 1, 1, groups),
        ("conv5", 256, 3, 1, 1, groups),
    )
    channels = 3
    for name, width, kernel, stride, padding, split in table:
        if name in without:
            continue
        yield name, nn.Conv2d(channels, width, kernel, stride, padding, groups=split)
        yield f"relu{name[-1]}", nn.ReLU(inplace=True)
        channels = width
        norm, pool = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2), nn.MaxPool2d(3, 2)
        if name in ("conv1", "conv2"):
            after = [(f"norm{name[-1]}", norm), (f"pool{name[-1]}", pool)]
            yield from after if groups == 2 else reversed(after)
    yield "pool5", nn.MaxPool2d(3, 2)


def _classifier(classes: int, without: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    values = 256 * 6 * 6
    for name in ("fc6", "fc7"):
        if name not in without:
            yield name, nn.Linear(values, 4096)
            yield f"relu{name[-1]}", nn.ReLU(inplace=True)
            yield f"drop{name[-1]}", nn.Dropout(0.5)
            values = 4096
    yield "fc8", nn.Linear(values, classes)


def alexnet_owt(*, classes: int = 1000) -> nn.Module:
    """AlexNet of "One weird trick": (N, 3, 224, 224) -> logits (N, classes).

    The single-tower form of Krizhevsky's arXiv:1404.5997, with 64, 192, 384, 256 and 256 maps and without
    response normalization. The first convolution has a padding of 2 for inputs of 224 pixels. With 1,000
    classes, the network has 61,100,840 parameters and 714,188,480 MACs.

    It is torchvision's `alexnet`, with the same parameter names, without the AdaptiveAvgPool2d to 6 x 6,
    which is the identity at 224 x 224.
    """
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(256, 256, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2),
            ),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Dropout(0.5),
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Linear(4096, classes),
            ),
        )
    )


def bn_alexnet(*, classes: int = 1000) -> nn.Module:
    """AlexNet in two columns with BatchNorm: (N, 3, 224, 224) -> logits (N, classes).

    The network called BN-AlexNet in Canziani, Paszke and Culurciello (arXiv:1605.07678), after the Torch
    definition in S. Chintala's imagenet-multiGPU.torch. The columns are joined only at the classifier, so
    convolutions 2 to 5 have two groups. BatchNorm follows every convolution and the first two linear layers.
    With 1,000 classes, the network has 60,541,992 parameters and 649,646,624 MACs; these two figures
    identified the definition. No checkpoint is available. torchvision does not have this network.
    """
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                *_normed(nn.Conv2d(3, 96, 11, stride=4, padding=2)),
                nn.MaxPool2d(3, 2),
                *_normed(nn.Conv2d(96, 256, 5, padding=2, groups=2)),
                nn.MaxPool2d(3, 2),
                *_normed(nn.Conv2d(256, 384, 3, padding=1, groups=2)),
                *_normed(nn.Conv2d(384, 384, 3, padding=1, groups=2)),
                *_normed(nn.Conv2d(384, 256, 3, padding=1, groups=2)),
                nn.MaxPool2d(3, 2),
            ),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Dropout(0.5),
                *_normed(nn.Linear(256 * 6 * 6, 4096)),
                nn.Dropout(0.5),
                *_normed(nn.Linear(4096, 4096)),
                nn.Linear(4096, classes),
            ),
        )
    )


def _normed(layer: nn.Conv2d | nn.Linear) -> tuple[nn.Module, nn.Module, nn.Module]:
    if isinstance(layer, nn.Conv2d):
        return layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(inplace=True)
    return layer, nn.BatchNorm1d(layer.out_features), nn.ReLU(inplace=True)
