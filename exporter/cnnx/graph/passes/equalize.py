"""Cross-layer equalization: scales channels so that one INT8 range fits all channels of a tensor.

The FP32 function does not change. The method is that of Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction" (arXiv:1906.04721, section 4.1), with measured activations instead of bounds
from weights. The geometric mean is a migration strength of 0.5 in SmoothQuant (Xiao et al., arXiv:2211.10438,
equation 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from cnnx.graph import edit
from cnnx.graph.passes.channels import Channels, by_output, channels_of, inputs_read, scale_channels

LARGEST = 8.0
"""Target for the largest activation of connected groups, far from both ends of the FP16 range.

Where channels that cannot be scaled are in the same tensor, theirs is the target.
"""


def equalize(model: ModelProto, maxima: Mapping[str, NDArray[np.float32]]) -> None:
    """Scale the channels of a graph without changing its FP32 function. Edits in place.

    The new range of a channel is the geometric mean of two values: its largest |x|, and the largest weight
    that reads it relative to the largest |x| of the output of that weight. This removes any scaling between
    layers that training or rewriting introduced.

    Args:
        model: FP32 graph.
        maxima: largest |x| per channel of each activation; 0 if not finite.

    Raises:
        GraphError: shapes in the graph contradict each other.
    """
    channels = channels_of(model)
    groups = channels.groups
    ranges, weights, beside = np.zeros((3, channels.count))
    for tensor, group in groups.items():
        # A tensor whose maxima are not per channel is in group 0 and does not matter.
        if len(maxima.get(tensor, ())) == len(group):
            np.maximum.at(ranges, group, maxima[tensor])
            fixed = maxima[tensor][group == 0].max(initial=0)
            np.maximum.at(beside, group, fixed)
    constants = edit.initializers(model.graph)
    for node in model.graph.node:
        axis = edit.weight_axis(node, constants)
        if axis is not None and node.output[0] in channels.layers and node.output[0] in maxima:
            largest = np.abs(by_output(edit.array(constants[node.input[1]]), axis)).max(axis=2)
            output = maxima[node.output[0]].astype(np.float64)[:, None]
            shares = np.divide(largest, output, out=np.zeros(largest.shape), where=output > 0)
            read = groups[node.input[0]]
            outputs, per_group = largest.shape
            np.maximum.at(weights, read[inputs_read(outputs, per_group, len(read))], shares)
    factors = np.ones(channels.count)
    for part in _connected(channels):
        largest = beside[part].max() or LARGEST
        factors[part] = _factors(ranges[part], weights[part], largest=largest)
    scale_channels(model, channels, factors)


def _connected(channels: Channels) -> Iterator[NDArray[np.intp]]:
    """Sets of groups that share tensors and must be scaled relative to each other; without group 0."""
    label = np.arange(channels.count)
    changed = True
    while changed:
        changed = False
        for group in channels.groups.values():
            own = group[group > 0]
            if len(own) and label[own].min() != label[own].max():
                label[own] = label[own].min()
                changed = True
    for number in np.unique(label[1:]):
        yield 1 + np.flatnonzero(label[1:] == number)


def _factors(
    ranges: NDArray[np.float64], weights: NDArray[np.float64], *, largest: float
) -> NDArray[np.float64]:
    """One factor for each of the connected groups; `largest`: the target for their largest activation."""
    alive, read = ranges > 0, weights > 0
    if not alive.any():
        return np.ones(len(ranges))
    wanted: NDArray[np.float64] = np.sqrt(ranges * weights)
    # Groups that no weight reads become as large as the median of the others. Groups that were always zero
    # (dead ReLUs) get weights as small as the others', or they alone would set the scale of their filter.
    middle = float(np.median(wanted[alive & read])) if (alive & read).any() else 1.0
    wanted[alive & ~read] = middle
    factors = np.ones(len(ranges))
    factors[~alive & read] = weights[~alive & read] / middle
    factors[alive] = wanted[alive] / ranges[alive]
    factors *= largest / wanted[alive].max()
    return factors
