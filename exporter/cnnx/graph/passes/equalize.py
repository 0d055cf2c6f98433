"""Cross-layer equalization: the same function, with channels scaled so that one INT8 range serves them all.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(arXiv:1906.04721, section 4.1), with activations measured instead of bounded by weights. The geometric mean
is a migration strength of 0.5 in SmoothQuant (Xiao et al., arXiv:2211.10438, equation 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from cnnx.graph import edit
from cnnx.graph.passes.channels import Channels, by_output, channels_of, inputs_read, scale_channels

LARGEST = 8.0
"""What the largest activation of each place becomes: far from both ends of FP16."""


def equalize(model: ModelProto, maxima: Mapping[str, NDArray[np.float32]]) -> None:
    """Scale the channels of a graph, as far as that changes nothing in FP32. Edits in place.

    A channel's new range is the geometric mean of the largest |x| it takes and of the largest of the weights
    that read it, each over the largest |x| of the output that it feeds. Whatever factors a network was
    trained or rewritten to have between its layers, they are gone afterwards.

    Args:
        model: FP32 graph.
        maxima: for each activation the largest |x| of each channel; those not finite as 0.

    Raises:
        GraphError: the graph contradicts itself.
    """
    channels = channels_of(model)
    groups = channels.groups
    ranges, weights = np.zeros(channels.count), np.zeros(channels.count)
    for tensor, group in groups.items():
        # A tensor whose maxima are of other things than its channels is of group 0: nothing hangs on them.
        if len(maxima.get(tensor, ())) == len(group):
            np.maximum.at(ranges, group, maxima[tensor])
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
    for place in _places(channels):
        factors[place] = _factors(ranges[place], weights[place])
    scale_channels(model, channels, factors)


def _places(channels: Channels) -> Iterator[NDArray[np.intp]]:
    """Groups that meet in some tensor, and so must be scaled with regard to each other; without group 0."""
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


def _factors(ranges: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """One factor for each group of a place."""
    alive, read = ranges > 0, weights > 0
    if not alive.any():
        return np.ones(len(ranges))
    wanted: NDArray[np.float64] = np.sqrt(ranges * weights)
    # What no weight reads becomes as large as the others' median; what was never seen alive (a dead ReLU)
    # gets weights as small as theirs, or they alone would set the scale of their filter.
    middle = float(np.median(wanted[alive & read])) if (alive & read).any() else 1.0
    wanted[alive & ~read] = middle
    factors = np.ones(len(ranges))
    factors[~alive & read] = weights[~alive & read] / middle
    factors[alive] = wanted[alive] / ranges[alive]
    factors *= LARGEST / wanted[alive].max()
    return factors
