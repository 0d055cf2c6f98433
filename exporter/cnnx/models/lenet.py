"""LeNet-5 (LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition,
Proceedings of the IEEE 86(11), 1998, section II-B), in the form it is taught in today.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def lenet5(classes: int = 10) -> nn.Module:
    """LeNet-5 for gray pictures of 32 x 32 pixels: (N, 1, 32, 32) -> logits (N, classes).

    With ten classes: 61,706 parameters and 416,520 multiply-adds a picture (biases excluded).

    layer  output     parameters                      multiply-adds
    conv1  6x28x28     25*1*6 + 6         =    156       117,600
    pool1  6x14x14
    conv2  16x10x10    25*6*16 + 16       =  2,416       240,000
    pool2  16x5x5
    fc1    120         400*120 + 120      = 48,120        48,000
    fc2    84          120*84 + 84        = 10,164        10,080
    fc3    10          84*10 + 10         =    850           840

    How it differs from the paper, whose network has 60,000 trainable parameters and 340,908 connections:
    C3 (conv2) reads all six maps where the paper's table of connections drops 36 of 96 pairs; S2 and S4
    take the maximum where the paper takes a sum with a trained coefficient and bias, then a sigmoid;
    ReLU stands for the scaled tanh; a linear layer with softmax stands for the Euclidean RBF units.
    Maximum and ReLU are chosen over average and tanh because that is what "modern" LeNets use and
    because both commute with INT8 quantization, so that TensorRT keeps INT8 from layer to layer.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * 5 * 5, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, classes),
        )
    )
