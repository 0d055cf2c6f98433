"""LeViT (Graham, El-Nouby, Touvron, Stock, Joulin, Jégou, Douze: LeViT: a Vision Transformer in ConvNet's
Clothing for Faster Inference, arXiv:2104.01136): four convolutions, then attention on shrinking maps.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

import torch
from torch import nn

Stage = tuple[int, int, int]
"""Channels, heads and side of the map."""

# Table 2, column LeViT-256, and constants shared by all its stages.
STAGES: tuple[Stage, ...] = ((256, 4, 14), (384, 6, 7), (512, 8, 4))
BLOCKS = 4  # blocks of attention and MLP per stage
KEY = 32  # D, channels of a head's queries and keys

# Initial scale of a BatchNorm that ends in a sum. With the paper's 0, a network without trained weights has
# no attention. With 1, its softmax saturates, and even rounding to FP16 changes the logits.
_DAMPED = 0.1


def levit(*, classes: int = 1000) -> nn.Module:
    """LeViT-256 in its convolutional form: (N, 3, 224, 224) -> logits (N, classes).

    With 1,000 classes, it has 18,893,876 parameters and 1,127,257,344 MACs per image (without biases), of
    which 79,123,712 are in the products of attention. The paper states 18.9 M and 1,120 M. The parts follow
    figure 4 and table 2:

    part     output     parameters           MACs
    stem     256x14x14     388,896    184,246,272
    stage 1  256x14x14   1,850,432    418,668,544
    stage 2  384x7x7     5,532,344    335,740,160
    stage 3  512x4x4    10,094,156    187,578,368
    heads    classes     1,028,048      1,024,000

    In evaluation mode, the logits are the mean of two heads, one trained on the labels and one on a teacher
    (section 4.2). In training mode both are returned, because each has its own loss.

    Every linear layer is a 1x1 convolution here, so that the BatchNorm after it can be folded. The form with
    linear layers on (N, H * W, C) computes the same, but its ONNX graph keeps 58 BatchNorms after matrix
    products and 135 Reshapes (PyTorch 2.13).

    Parameter names and values are those of timm's `levit_conv_256`. Differences:

    * Shrinking attention subsamples with the stride of its query convolution. timm has an average pool of one
      value before it.
    * The attention biases are looked up in every forward pass, not cached.
    * Residual branches start small, not at zero.

    Image sizes for which the stem's map is not 14x14 are refused, because there are no biases for them.
    """
    return LeViT(_stem((3, 32, 64, 128, 256), strides=(2, 2, 2, 2)), STAGES, BLOCKS, classes)


def small_levit(*, classes: int = 100) -> nn.Module:
    """Small LeViT for images of 32 x 32: (N, 3, 32, 32) -> logits (N, classes).

    The configuration is cnnx's own, not from a paper. A stem of four convolutions, every second with stride
    2, gives 64x8x8. It is followed by a stage of two blocks with two heads, and by a second stage on 96x4x4.
    The rest is as in `levit`. With 100 classes, the network has 435,240 parameters and 29,379,328 MACs.
    """
    stem = _stem((3, 32, 64, 64, 64), strides=(1, 2, 1, 2))
    return LeViT(stem, ((64, 2, 8), (96, 2, 4)), 2, classes)


class LeViT(nn.Module):
    """The network of `levit`.

    Args:
        stem: module from the image to the map of the first stage.
        stages: stages in order; all but the first begin by shrinking the map.
        blocks: number of blocks per stage.
        classes: length of the logits.
    """

    def __init__(self, stem: nn.Module, stages: tuple[Stage, ...], blocks: int, classes: int) -> None:
        super().__init__()
        last = stages[-1][0]
        before: tuple[Stage | None, ...] = (None, *stages[:-1])
        self.stem = stem
        self.stages = nn.Sequential(
            *(_stage(*neighbours, blocks) for neighbours in zip(before, stages, strict=True))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = _head(last, classes)
        self.head_dist = _head(last, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) -> logits (N, classes); in training mode a pair, for the labels and the teacher."""
        x = self.flatten(self.pool(self.stages(self.stem(x))))
        labels, teacher = self.head(x), self.head_dist(x)
        return (labels, teacher) if self.training else (labels + teacher) / 2


def _stem(widths: tuple[int, ...], strides: tuple[int, ...]) -> nn.Sequential:
    """Convolutions from each width to the next, with Hardswish between them."""
    layers = OrderedDict[str, nn.Module]()
    pairs = zip(itertools.pairwise(widths), strides, strict=True)
    for number, ((channels, outputs), stride) in enumerate(pairs, 1):
        layers[f"conv{number}"] = _conv_norm(channels, outputs, 3, stride=stride)
        layers[f"act{number}"] = nn.Hardswish()
    layers.popitem()  # none after the last
    return nn.Sequential(layers)


def _stage(before: Stage | None, stage: Stage, blocks: int) -> nn.Sequential:
    channels, heads, side = stage
    layers = OrderedDict[str, nn.Module]()
    if before:
        layers["downsample"] = Downsample(before[0], channels, before[2])
    layers["blocks"] = nn.Sequential(*(Block(channels, heads, side) for _ in range(blocks)))
    return nn.Sequential(layers)


class Block(nn.Module):
    """Residual attention and residual MLP; the shape does not change."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.attn = Attention(channels, heads, side)
        self.mlp = _mlp(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, side, side) -> the same."""
        x = x + self.attn(x)
        added: torch.Tensor = x + self.mlp(x)
        return added


class Downsample(nn.Module):
    """Shrinking attention, which has no residual connection, and a residual MLP."""

    def __init__(self, channels: int, outputs: int, side: int) -> None:
        super().__init__()
        self.attn_downsample = ShrinkingAttention(channels, outputs, side)
        self.mlp = _mlp(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, side, side) -> (N, outputs, side / 2 rounded up, the same)."""
        x = self.attn_downsample(x)
        added: torch.Tensor = x + self.mlp(x)
        return added


class Attention(nn.Module):
    """Figure 5, left: attention with values of 2 D channels per head."""

    offsets: torch.Tensor

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _conv_norm(channels, heads * 4 * KEY)
        self.proj = _projection(heads * 2 * KEY, channels, scale=_DAMPED)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        self.register_buffer("offsets", _offsets(side), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, side, side) -> the same."""
        q, k, v = torch.split(_by_head(self.qkv(x), self.heads), [KEY, KEY, 2 * KEY], dim=2)
        mixed = _attend(q, k, v, self.attention_biases[:, self.offsets])
        projected: torch.Tensor = self.proj(mixed.view(-1, self.heads * 2 * KEY, *x.shape[2:]))
        return projected


class ShrinkingAttention(nn.Module):
    """Figure 5, right: queries at every second row and column, C / D heads, values of 4 D channels."""

    offsets: torch.Tensor

    def __init__(self, channels: int, outputs: int, side: int) -> None:
        super().__init__()
        self.heads = channels // KEY
        self.kv = _conv_norm(channels, self.heads * 5 * KEY)
        self.q = nn.Sequential(OrderedDict(ln=_conv_norm(channels, self.heads * KEY, stride=2)))
        self.proj = _projection(self.heads * 4 * KEY, outputs)
        self.attention_biases = nn.Parameter(torch.zeros(self.heads, side * side))
        self.register_buffer("offsets", _offsets(side, stride=2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, side, side) -> (N, outputs, side / 2 rounded up, the same)."""
        k, v = torch.split(_by_head(self.kv(x), self.heads), [KEY, 4 * KEY], dim=2)
        queries = self.q(x)
        mixed = _attend(_by_head(queries, self.heads), k, v, self.attention_biases[:, self.offsets])
        projected: torch.Tensor = self.proj(mixed.view(-1, self.heads * 4 * KEY, *queries.shape[2:]))
        return projected


def _by_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(N, heads * d, H, W) -> (N, heads, d, H * W)."""
    _, channels, height, width = x.shape
    return x.view(-1, heads, channels // heads, height * width)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Apply equation 1 to all heads: softmax over the keys, then the weighted mean of the values.

    Inputs and output have shape (N, heads, channels, positions); the bias is (heads, queries, keys).
    """
    weights = torch.softmax(q.transpose(-2, -1) @ k * KEY**-0.5 + bias, -1)
    return v @ weights.transpose(-2, -1)


def _offsets(side: int, *, stride: int = 1) -> torch.Tensor:
    """Return the index of the bias of each query and key in the table of a head: |dy| * side + |dx|."""
    ticks = torch.arange(side)
    keys = torch.cartesian_prod(ticks, ticks)
    queries = torch.cartesian_prod(ticks[::stride], ticks[::stride])
    dy, dx = (queries[:, None] - keys).abs().unbind(-1)
    return dy * side + dx


def _conv_norm(
    channels: int, outputs: int, kernel: int = 1, *, stride: int = 1, scale: float = 1.0
) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, scale)
    linear = nn.Conv2d(channels, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(linear=linear, bn=norm))


def _mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            ln1=_conv_norm(channels, 2 * channels),
            act=nn.Hardswish(),
            ln2=_conv_norm(2 * channels, channels, scale=_DAMPED),
        )
    )


def _projection(channels: int, outputs: int, *, scale: float = 1.0) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(act=nn.Hardswish(), ln=_conv_norm(channels, outputs, scale=scale)),
    )


def _head(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm1d(channels), linear=nn.Linear(channels, classes)))
