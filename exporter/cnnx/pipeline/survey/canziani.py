"""Published points of A. Canziani, A. Paszke, E. Culurciello, "An Analysis of Deep Neural Network Models for
Practical Applications", arXiv:1605.07678 (2016), Figures 1, 2 and 10.

Operations, accuracies and parameters are decoded from the authors' own plots
(github.com/culurciello/culurciello.github.io, commit a5cfcff, assets/nets/acc_vs_net_vs_ops.svg and
acc_dens_vs_net.svg). The time, power and memory of each network were not published as numbers.
Operations are twice the MACs. Those of AlexNet ignore its groups, and the Inception-v4 is smaller than the
published one.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "Canziani et al. 2016"


class Point(NamedTuple):
    """A network of the paper.

    Attributes:
        gops: operations for one image, in units of 1e9.
        top1: accuracy on ImageNet, one central crop, in percent.
        parameters_m: parameters, in units of 1e6.
    """

    network: str
    gops: float
    top1: float
    parameters_m: float


POINTS = (
    Point("AlexNet", 2.26, 54.61, 60.97),
    Point("BN-AlexNet", 1.30, 56.60, 60.54),
    Point("BN-NIN", 2.52, 62.62, 8.64),
    Point("ENet", 1.57, 68.40, 5.86),
    Point("GoogLeNet", 3.00, 68.70, 6.99),
    Point("ResNet-18", 3.63, 69.57, 11.69),
    Point("VGG-16", 30.97, 70.62, 138.36),
    Point("VGG-19", 39.29, 70.74, 143.67),
    Point("ResNet-34", 7.34, 73.27, 21.80),
    Point("ResNet-50", 8.21, 75.99, 25.56),
    Point("ResNet-101", 15.65, 77.56, 44.60),
    Point("ResNet-152", 23.10, 77.84, 60.27),
    Point("Inception-v3", 11.45, 78.53, 23.85),
    Point("Inception-v4", 18.44, 80.10, 31.57),
)
