"""ZFNet (Zeiler and Fergus: Visualizing and Understanding Convolutional Networks, arXiv:1311.2901,
figure 3).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def zfnet(*, widths: tuple[int, int, int] = (384, 384, 256), classes: int = 1000) -> nn.Module:
    """AlexNet with a finer first layer: (N, 3, 224, 224) -> logits (N, classes).

    layer              output        parameters              MACs
    conv1  7x7/2       96x110x110        14,208      170,755,200
    pool1, norm1       96x55x55
    conv2  5x5/2       256x26x26        614,656      415,334,400
    pool2, norm2       256x13x13
    conv3  3x3         384x13x13        885,120      149,520,384
    conv4  3x3         384x13x13      1,327,488      224,280,576
    conv5  3x3         256x13x13        884,992      149,520,384
    pool5              256x6x6
    fc6, fc7           4096          54,534,144       54,525,952
    fc8                classes        4,097,000        4,096,000
    with 1,000 classes               62,357,608    1,168,032,896

    The first convolution is padded by 1, which gives the figure's 110. The first two pools are 3x3/2 and
    round up, which gives its 55 and 13. The contrast normalization after them is AlexNet's response
    normalization across maps, as in other reimplementations, because the paper has no formula. torchvision
    does not have this network.

    Args:
        widths: number of maps of conv3, conv4 and conv5. (512, 1024, 512) is the wider variant of table 3,
            with 107,627,624 parameters and 2,476,704,896 MACs.
        classes: length of the logits.
    """
    third, fourth, fifth = widths
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 96, 7, stride=2, padding=1),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            norm1=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            conv2=nn.Conv2d(96, 256, 5, stride=2),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
            norm2=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            conv3=nn.Conv2d(256, third, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(third, fourth, 3, padding=1),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(fourth, fifth, 3, padding=1),
            relu5=nn.ReLU(inplace=True),
            pool5=nn.MaxPool2d(3, 2),
            flatten=nn.Flatten(),
            fc6=nn.Linear(fifth * 6 * 6, 4096),
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(0.5),
            fc7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(0.5),
            fc8=nn.Linear(4096, classes),
        )
    )
