"""Groups of channels that can be scaled together without changing the function of a graph.

A channel can be multiplied by a positive factor where it is produced and divided by it where it is read. The
logits do not change if all operators between commute with the factor: ReLU (but not HardSwish), pooling and
zero padding do. A sum ties the channels it adds; a concatenation passes them on. Equalization relies on this
(Nagel et al., arXiv:1906.04721, section 4.1), and so do the hostile twins that test it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from cnnx.graph import edit
from cnnx.graph.edit import ValueType, Wiring

Groups = NDArray[np.intp]
"""Group of each channel of an activation (axis 1); group 0 cannot be scaled."""


@dataclass(frozen=True, slots=True)
class Channels:
    """Channels of a graph that can be scaled.

    Attributes:
        groups: activation -> group of each channel; the channels of a group share one factor.
        layers: first outputs of the nodes whose weights can absorb factors.
        count: number of groups, including group 0.
    """

    groups: Mapping[str, Groups]
    layers: frozenset[str]
    count: int


_COMMUTES = frozenset(
    {
        "AveragePool",
        "Dropout",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Relu",
    }
)


def channels_of(model: ModelProto) -> Channels:
    """Group the channels of all activations.

    Channels that an unknown operator produces or reads cannot be scaled and are in group 0.

    Args:
        model: FP32 graph; it is not changed.

    Raises:
        GraphError: shapes in the graph contradict each other.
    """
    walk = _Walk(edit.wiring(model.graph), edit.value_types(model))
    for value in edit.data_inputs(model.graph):
        walk.fixed(value.name)
    for node in model.graph.node:
        walk.take(node)
    for value in model.graph.output:
        walk.fix(value.name)
    return walk.result()


def scale_channels(model: ModelProto, channels: Channels, factors: NDArray[np.float64]) -> None:
    """Multiply every group by a factor through the weights that produce and read it. Edits in place.

    Args:
        model: the graph that was passed to `channels_of`.
        channels: result of `channels_of`.
        factors: one positive value per group, in group order; the first, of group 0, is 1.
    """
    groups = channels.groups
    constants, names = edit.initializers(model.graph), edit.Names(model.graph)
    readers = Counter(name for node in model.graph.node for name in node.input)

    def multiply(node: NodeProto, index: int, by: NDArray[np.float64]) -> None:
        if np.all(by == 1):
            return
        name = node.input[index]
        old = edit.array(constants[name])
        scaled = edit.tensor_from_array(name, (old * by).astype(old.dtype))
        if readers[name] == 1:
            constants[name].CopyFrom(scaled)
        else:  # exporters share equal constants, so this reader needs its own copy
            readers[name] -= 1
            node.input[index] = scaled.name = names.fresh(f"{name}.scaled")
            model.graph.initializer.append(scaled)

    for node in model.graph.node:
        if node.output[0] not in channels.layers:
            continue
        made, read = factors[groups[node.output[0]]], factors[groups[node.input[0]]]
        axis = edit.weight_axis(node, constants)
        if axis is None:  # a BatchNormalization
            for index, by in enumerate((made / read, made, read), start=1):
                multiply(node, index, by)
        else:
            dims = list(constants[node.input[1]].dims)
            quotient = made[:, None] / read[inputs_read(dims[axis], dims[1 - axis], len(read))]
            kernel = [1] * (len(dims) - 2)
            multiply(node, 1, (quotient if axis == 0 else quotient.T).reshape(*dims[:2], *kernel))
            if len(node.input) > 2 and node.input[2]:
                multiply(node, 2, made)


def by_output(weight: NDArray[Any], axis: int) -> NDArray[Any]:
    """View of a weight as (outputs, inputs per group, kernel values)."""
    turned = np.moveaxis(weight, axis, 0)
    return turned.reshape(*turned.shape[:2], -1)


def inputs_read(outputs: int, per_group: int, channels: int) -> NDArray[np.intp]:
    """Input channels that each row of a weight reads: (outputs, inputs per group)."""
    in_group = outputs // (channels // per_group)  # outputs of one group
    first: NDArray[np.intp] = np.arange(outputs) // in_group * per_group
    return first[:, None] + np.arange(per_group)


class _Walk:
    """A traversal of a graph that assigns groups and merges those that must be equal."""

    def __init__(self, graph: Wiring, types: Mapping[str, ValueType]) -> None:
        self._graph = graph
        self._types = types
        self._parents = [0]
        self._groups: dict[str, Groups] = {}
        self._layers: set[str] = set()

    def take(self, node: NodeProto) -> None:
        """Assign groups to the outputs of a node."""
        if node.op_type in _RULES and _RULES[node.op_type](self, node):
            return
        for name in node.input:
            self.fix(name)
        for name in node.output:
            self.fixed(name)

    def fixed(self, tensor: str) -> None:
        """Mark a tensor whose channels cannot be scaled."""
        if (channels := self._channels(tensor)) is not None:
            self._groups[tensor] = np.zeros(channels, np.intp)

    def fix(self, tensor: str) -> None:
        """Merge the channels of a tensor into group 0."""
        if tensor in self._groups:
            self._join(self._groups[tensor], np.zeros_like(self._groups[tensor]))

    def result(self) -> Channels:
        """The groups, numbered without gaps in order of appearance."""
        roots = np.array([self._root(number) for number in range(len(self._parents))])
        _, numbers = np.unique(roots, return_inverse=True)
        groups = {tensor: numbers[ids].astype(np.intp) for tensor, ids in self._groups.items()}
        return Channels(groups, frozenset(self._layers), int(numbers.max()) + 1)

    def _rank(self, tensor: str) -> int | None:
        return self._types[tensor].rank if tensor in self._types else None

    def _channels(self, tensor: str) -> int | None:
        shape = self._types[tensor].shape if tensor in self._types else None
        return shape[1] if shape is not None and len(shape) > 1 and isinstance(shape[1], int) else None

    def _fresh(self, count: int) -> Groups:
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _join(self, left: Groups, right: Groups) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            low, high = sorted((self._root(one), self._root(other)))
            self._parents[high] = low  # the lower number is kept, so group 0 stays 0

    def weighted(self, node: NodeProto) -> bool:
        """A layer whose weights can absorb factors of both input and output."""
        constants = self._graph.initializers
        axis = edit.weight_axis(node, constants)
        if axis is None or not all(name in constants for name in node.input[1:] if name):
            return False
        dims = constants[node.input[1]].dims
        if node.op_type == "MatMul" and self._rank(node.input[0]) != 2:
            return False
        if len(node.input) > 2 and node.input[2] and list(constants[node.input[2]].dims) != [dims[axis]]:
            return False
        self._groups.setdefault(
            node.input[0], np.zeros(dims[1 - axis] * edit.attribute(node, "group", 1), np.intp)
        )
        self._groups[node.output[0]] = self._fresh(dims[axis])
        self._layers.add(node.output[0])
        return True

    def batch_norm(self, node: NodeProto) -> bool:
        """A layer with one weight per channel."""
        constants = self._graph.initializers
        if edit.attribute(node, "training_mode", 0) or not all(name in constants for name in node.input[1:5]):
            return False
        channels = constants[node.input[1]].dims[0]
        self._groups.setdefault(node.input[0], np.zeros(channels, np.intp))
        self._groups[node.output[0]] = self._fresh(channels)
        self._layers.add(node.output[0])
        return True

    def same(self, node: NodeProto) -> bool:
        """An operator that commutes with positive factors passes channels on."""
        if node.input[0] in self._groups:
            self._groups[node.output[0]] = self._groups[node.input[0]]
        return True

    def flatten(self, node: NodeProto) -> bool:
        """(N, C, H, W) -> (N, C * H * W): each channel becomes several channels of one group."""
        channels, values = self._groups.get(node.input[0]), self._channels(node.output[0])
        if edit.attribute(node, "axis", 1) != 1 or channels is None or not values or values % len(channels):
            return False
        self._groups[node.output[0]] = np.repeat(channels, values // len(channels))
        return True

    def concat(self, node: NodeProto) -> bool:
        """A concatenation along the channels concatenates their groups."""
        rank = self._rank(node.output[0])
        parts = [self._groups.get(name) for name in node.input]
        known = [part for part in parts if part is not None]
        if rank is None or edit.attribute(node, "axis") % rank != 1 or len(known) < len(parts):
            return False
        self._groups[node.output[0]] = np.concatenate(known)
        return True

    def add(self, node: NodeProto) -> bool:
        """A sum of two activations merges the groups of their channels."""
        left, right = (self._groups.get(name) for name in node.input)
        ranks = {self._rank(name) for name in node.input} - {None}
        if left is None or right is None or len(left) != len(right) or len(ranks) > 1:
            return False
        self._join(left, right)
        self._groups[node.output[0]] = left
        return True

    def pad(self, node: NodeProto) -> bool:
        """Zero padding commutes with every factor; added channels get new groups."""
        constants = self._graph.initializers
        value = node.input[2] if len(node.input) > 2 else ""
        if (
            edit.attribute(node, "mode", "constant") != "constant"
            or (value and (value not in constants or edit.array(constants[value]).any()))
            or any(node.input[3:])
            or node.input[1] not in constants
            or node.input[0] not in self._groups
        ):
            return False
        pads = [int(length) for length in edit.array(constants[node.input[1]])]
        before, after = pads[1], pads[len(pads) // 2 + 1]
        if min(before, after) < 0:
            return False
        inner = self._groups[node.input[0]]
        self._groups[node.output[0]] = np.concatenate([self._fresh(before), inner, self._fresh(after)])
        return True


_RULES: dict[str, Callable[[_Walk, NodeProto], bool]] = {
    **dict.fromkeys(_COMMUTES, _Walk.same),
    "Add": _Walk.add,
    "BatchNormalization": _Walk.batch_norm,
    "Concat": _Walk.concat,
    "Conv": _Walk.weighted,
    "Flatten": _Walk.flatten,
    "Gemm": _Walk.weighted,
    "MatMul": _Walk.weighted,
    "Pad": _Walk.pad,
}
