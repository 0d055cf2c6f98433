"""Finds the scales of each layer among those of a file's Q/DQ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from cnnx.graph import edit
from cnnx.graph.edit import Wiring
from cnnx.graph.entry.qdq import Taken, WeightScale, notes_on
from cnnx.graph.scales import FileScales

_LEVELS = 127
# Their outputs are values of their first input, zeros or bounds, so that its scale serves them, too.
_KEEP_RANGE = frozenset(
    {"Cast", "Clip", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Relu"}
    | {"Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
# Folding a BatchNormalization rounds weight and scale to float32, by 3e-5 steps at most. Weights that are
# nearer than this to the middle between two integers could then change sides.
_MARGIN = np.float32(2**-12)
# Weight elements looked at at a time, to limit the size of temporary copies.
_SLICE = 1 << 22


def weight_scales(model: ModelProto, taken: Taken) -> dict[str, WeightScale | None]:
    """Node -> the scale of its weight, before folding hides from which constant that is computed.

    Args:
        model: a checked graph without Q/DQ, whose nodes have unique names.
        taken: scales of its tensors.
    """
    graph = edit.wiring(model.graph)
    return {
        node.name: _weight_scale(node.input[1], graph, taken)
        for node in model.graph.node
        if len(node.input) > 1
    }


def scales_by_layer(model: ModelProto, taken: Taken, behind: Mapping[str, WeightScale | None]) -> FileScales:
    """The scales of weighted layers and sums. Settles weights in place.

    A tensor without a scale of its own has that of the tensor whose values it holds, as after MaxPool. A
    weight that lies between two integers, within 2e-4 steps, is moved away from the middle by that much, so
    that it keeps its integer when a BatchNormalization is folded into it.

    Args:
        model: the graph after folding.
        taken: scales of its tensors.
        behind: scale of each node's weight.
    """
    ranges = _spread(model, taken)
    constants = edit.initializers(model.graph)
    inputs: dict[str, tuple[float, ...]] = {}
    weights: dict[str, tuple[float, ...]] = {}
    requantized = []
    for node in model.graph.node:
        if node.op_type == "Add":
            inputs[node.name] = tuple(ranges.get(name, 0.0) for name in node.input)
        if (axis := edit.weight_axis(node, constants)) is None:
            continue
        inputs[node.name] = (ranges.get(node.input[0], 0.0),)
        if found := behind.get(node.name):
            tensor = constants[node.input[1]]
            steps = _steps(tensor, axis, found)
            if steps is None:
                requantized.append(node.name)
            # 127 steps in every channel: its own largest weight.
            weights[node.name] = (float(_LEVELS),) * tensor.dims[axis] if steps is None else steps
    return FileScales(
        {name: found for name, found in inputs.items() if any(found)},
        weights,
        notes_on(taken, requantized=requantized),
    )


def _spread(model: ModelProto, taken: Taken) -> dict[str, float]:
    """Activation -> range, also of tensors that hold values of those with a scale."""
    known = {name: max(found) for name, found in taken.ranges.items()}
    for node in model.graph.node:
        parts = [known.get(name) for name in (node.input if node.op_type == "Concat" else node.input[:1])]
        found = [amax for amax in parts if amax is not None]
        if node.op_type in _KEEP_RANGE | {"Concat"} and found and len(found) == len(parts):
            for name in node.output:
                known.setdefault(name, max(found))
    return known


def _weight_scale(tensor: str, graph: Wiring, taken: Taken) -> WeightScale | None:
    """The scale of the constant behind a weight, its axis as seen by the layer; None without one."""
    turns: list[list[int]] = []  # permutations from the weight back to the constant; []: reversed
    while tensor not in taken.weights:
        node = graph.producers.get(tensor)
        if node is None or node.op_type not in ("Cast", "Identity", "Transpose"):
            return None
        if node.op_type == "Transpose":
            turns.append(list(edit.attribute(node, "perm", [])))
        tensor = node.input[0]
    first, *others = taken.weights[tensor]
    alike = all(np.array_equal(each.scale, first.scale) and each.axis == first.axis for each in others)
    exact = alike and all(each.exact for each in (first, *others))
    axis, rank = first.axis, len(graph.initializers[tensor].dims)
    for perm in reversed(turns):
        axis = (perm or list(reversed(range(rank)))).index(axis % rank)
    return WeightScale(first.scale, axis, exact)


def _steps(tensor: TensorProto, axis: int, found: WeightScale) -> tuple[float, ...] | None:
    """Largest |w| of each output channel in steps; None if the file's integers cannot be kept."""
    channels, rank = tensor.dims[axis], len(tensor.dims)
    per_channel = found.scale.size > 1
    if not found.exact or (per_channel and (found.axis % rank != axis or found.scale.size != channels)):
        return None
    weight = edit.array(tensor)
    if not weight.size:
        return None
    scale = np.broadcast_to(found.scale, channels)
    spread = scale.astype(np.float32).reshape([-1 if index == axis else 1 for index in range(rank)])
    _settle(tensor, weight, spread, by_row=axis == 0)
    others = tuple(index for index in range(rank) if index != axis)
    weight = edit.array(tensor)
    amax = np.maximum(weight.max(axis=others), -weight.min(axis=others)).astype(np.float64)
    return tuple((amax / scale).tolist())


def _settle(
    tensor: TensorProto, weight: NDArray[np.float32], spread: NDArray[np.float32], *, by_row: bool
) -> None:
    """Move weights that are nearly in the middle between two integers towards the one they round to."""
    settled, changed = weight.copy(), False
    rows = max(1, _SLICE // max(1, weight[0].size))
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        step = spread[part] if by_row else spread
        with np.errstate(all="ignore"):  # of scales that float32 does not hold
            quotient = weight[part] / step
            whole = np.rint(quotient)
            gap = quotient - whole
        near = np.abs(gap) > np.float32(0.5) - _MARGIN
        if near.any():
            moved = (whole + np.copysign(np.float32(0.5) - _MARGIN, gap)) * step
            settled[part] = np.where(near, moved, weight[part])
            changed = True
    if changed:
        tensor.CopyFrom(edit.tensor_from_array(tensor.name, settled))
