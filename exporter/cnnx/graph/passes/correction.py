"""Bias correction: the mean shift of a layer's output caused by rounding its weights.

Rounding errors of weights have either sign, but activations after a ReLU are never negative. Their products
add up to a shift of every output channel, which the bias can compensate.

Nagel, van Baalen, Blankevoort and Welling, Data-Free Quantization Through Weight Equalization and Bias
Correction, arXiv:1906.04721, section 4.2; with means measured on images, as in its appendix D.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from cnnx.graph import edit

# Weight elements processed at a time, to limit the size of temporary copies.
_SLICE = 1 << 22


def mean_output_error(
    node: NodeProto,
    weight: NDArray[np.float32],
    *,
    quantized: NDArray[np.int8],
    scale: NDArray[np.float32],
    mean: NDArray[np.float32],
) -> NDArray[np.float32] | None:
    """Mean output error of each channel that quantizing the weights causes.

    At the edges of an image, where a convolution reads padding, the result is slightly too large.

    Args:
        node: Conv or Gemm.
        weight: original weight, (out, in per group, height, width), or the matrix of a Gemm.
        quantized: quantized weight of the same shape.
        scale: one scale per output channel.
        mean: mean of each input channel.

    Returns:
        (out,) values to add to the bias; None for another operator, a Gemm that scales its product, or an
        input whose channels do not match the weight.
    """
    if node.op_type == "Gemm":
        if edit.attribute(node, "alpha", 1.0) != 1 or edit.attribute(node, "beta", 1.0) != 1:
            return None
        if not edit.attribute(node, "transB", 0):
            weight, quantized = weight.T, quantized.T
    elif node.op_type != "Conv":
        return None
    groups = edit.attribute(node, "group", 1)
    outputs, inputs = weight.shape[:2]
    if mean.shape != (groups * inputs,) or scale.shape != (outputs,):
        return None
    # Each row of the weights reads the channels of its group.
    group_of = np.arange(outputs) // (outputs // groups)
    means = mean.reshape(groups, inputs)
    shift = np.empty(outputs, np.float32)
    rows = max(1, _SLICE // max(1, weight[0].size))
    for start in range(0, outputs, rows):
        part = slice(start, start + rows)
        error = weight[part] - quantized[part] * scale[part].reshape(-1, *[1] * (weight.ndim - 1))
        summed = error.reshape(*error.shape[:2], -1).sum(axis=2)
        shift[part] = (summed * means[group_of[part]]).sum(axis=1)
    return shift
