"""What rounding a layer's weights does to its output on average: bias correction.

Rounding errors of weights have no sign of their own, activations behind a ReLU do: their products add up to
a shift of every output channel, which the bias can take back. Nagel, van Baalen, Blankevoort and Welling,
Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721, section 4.2; with
means that pictures showed, as in its appendix D.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from cnnx.graph import edit

# Elements of weights looked at together: bounds the copies made on the way.
_SLICE = 1 << 22


def mean_output_error(
    node: NodeProto,
    weight: NDArray[np.float32],
    *,
    quantized: NDArray[np.int8],
    scale: NDArray[np.float32],
    mean: NDArray[np.float32],
) -> NDArray[np.float32] | None:
    """What each output channel lacks on average once the weights are quantized.

    At the edges of a picture, where a convolution reads its padding, it is a little too much.

    Args:
        node: Conv or Gemm.
        weight: as it was: (out, in a group, height, width), or a Gemm's matrix.
        quantized: of the same shape.
        scale: one for each output channel.
        mean: of each channel of its input.

    Returns:
        (out,); None for another operator, a Gemm that scales its product, or an input whose channels are
        not those that the weights read.
    """
    if node.op_type == "Gemm":
        if edit.attribute(node, "alpha", 1.0) != 1 or edit.attribute(node, "beta", 1.0) != 1:
            return None
        if not edit.attribute(node, "transB", 0):
            weight, quantized = weight.T, quantized.T
    elif node.op_type != "Conv":
        return None
    groups = edit.attribute(node, "group", 1) if node.op_type == "Conv" else 1
    outputs, inputs = weight.shape[:2]
    if mean.shape != (groups * inputs,) or scale.shape != (outputs,):
        return None
    # Row r of the weights reads the channels of its group.
    read = np.repeat(mean.reshape(groups, inputs), outputs // groups, axis=0) if groups > 1 else mean[None]
    shift = np.empty(outputs, np.float32)
    rows = max(1, _SLICE // max(1, weight[0].size))
    for start in range(0, outputs, rows):
        part = slice(start, start + rows)
        error = weight[part] - quantized[part] * scale[part].reshape(-1, *[1] * (weight.ndim - 1))
        summed = error.reshape(*error.shape[:2], -1).sum(axis=2)
        shift[part] = (summed * (read[part] if groups > 1 else read)).sum(axis=1)
    return shift
