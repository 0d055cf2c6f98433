"""Centering: shifts activations that are never negative, so that symmetric INT8 uses all of its steps.

TensorRT quantizes symmetrically, so that half of the steps of a ReLU's output are never used. Here such an
activation x is replaced by x - c, with c = 128 steps: zero, its most frequent value, becomes -128 exactly.
The FP32 function does not change, and no operator is added: the biases that produce x lose c, a ReLU becomes
a Clip at -c, and the biases that read x gain c times the sum of their weights.

Zero padding must stay zero, so that what a padded convolution reads is not shifted. Nor is what an operator
reads or produces that does not commute with a shift.

The idea of absorbing zero points into biases is that of Jacob et al., arXiv:1712.05877, section 2.3, there
for integers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from cnnx.graph import edit
from cnnx.graph.edit import Wiring
from cnnx.graph.passes.qdq import LEVELS, scales_from_amax
from cnnx.options import Scales

_STEPS = 255
"""Steps between the smallest and the largest value of a centered activation."""
_FP16_MAX = float(np.finfo(np.float16).max)
_ZERO = 128
"""Steps from the middle of the range to zero. A power of two, so that FP16 holds the product exactly."""

_COMMUTES = frozenset(
    {
        "AveragePool",
        "Clip",
        "Concat",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "MaxPool",
        "Relu",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
    }
)
"""A shift of all data inputs shifts the output by as much. Clip and Relu: with shifted bounds."""


@dataclass(frozen=True, slots=True)
class Centered:
    """How an activation is quantized after a shift.

    Attributes:
        zero: by how much it is smaller than before.
        amax: range to which it is quantized.
        largest: value of the original that is not clipped.
    """

    zero: float
    amax: float
    largest: float


def never_negative(model: ModelProto) -> frozenset[str]:
    """Activations that are never negative, by the operators that make them."""
    graph = edit.wiring(model.graph)
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Relu" or (node.op_type == "Clip" and _low(node, graph) >= 0):
            found.update(node.output)
        elif node.op_type in _COMMUTES or node.op_type == "Add":
            read = _data_inputs(node)
            if read and found.issuperset(read):
                found.update(node.output)
    return frozenset(found)


def center(
    model: ModelProto, quantized: Collection[str], highs: Mapping[str, float], *, scales: Scales
) -> tuple[ModelProto, dict[str, Centered]]:
    """A copy of a graph with the same function, and the quantized activations that it shifts.

    Args:
        model: FP32 graph; it is not changed.
        quantized: activations that nodes will read through Q/DQ.
        highs: activation that is never negative -> largest value to represent; others are not shifted.
        scales: type that the steps will be stored in.
    """
    walk = _Walk(model, frozenset(quantized))
    steps = {
        root: float(scales_from_amax(np.array(high * LEVELS / _STEPS), scales=scales))
        for root, high in walk.highs(highs).items()
    }
    most = _FP16_MAX if scales == "fp16" else np.inf
    while True:
        copy = ModelProto()
        copy.CopyFrom(model)
        shifter = _Shifter(copy, walk, steps, most=most)
        shifter.shift()
        if not shifter.too_large:
            break
        left = {root: step for root, step in steps.items() if root not in shifter.too_large}
        steps = left if len(left) < len(steps) else {}  # a bias that balances a sum, of any set
    found = {name: steps[root] for name in quantized if (root := walk.root(name)) in steps}
    return copy, {name: Centered(_ZERO * step, LEVELS * step, _STEPS * step) for name, step in found.items()}


def _low(node: NodeProto, graph: Wiring) -> float:
    """Lower bound of a Clip; -inf if there is none or it is computed."""
    name = node.input[1] if len(node.input) > 1 else ""
    return float(edit.array(graph.initializers[name])) if name in graph.initializers else -np.inf


def _data_inputs(node: NodeProto) -> Sequence[str]:
    return list(node.input) if node.op_type in ("Concat", "Add") else list(node.input[:1])


class _Walk:
    """Sets of activations that must be shifted by as much as each other, or not at all.

    Attributes:
        sums: output of an Add of two activations -> the operand that is shifted with the sum's other readers,
            and the output of the layer whose bias balances the difference.
    """

    def __init__(self, model: ModelProto, quantized: frozenset[str]) -> None:
        self._graph = edit.wiring(model.graph)
        self._quantized = quantized
        self._parents: dict[str, str] = {}
        self._fixed: set[str] = set()
        self.sums: dict[str, tuple[str, str]] = {}
        for value in edit.data_inputs(model.graph):
            self._fix(value.name)
        for node in model.graph.node:
            self._take(node)
        for name in self._graph.outputs:
            self._fix(name)

    def root(self, tensor: str) -> str:
        """The representative of a tensor's set."""
        while (parent := self._parents.get(tensor, tensor)) != tensor:
            tensor = parent
        return tensor

    def highs(self, highs: Mapping[str, float]) -> dict[str, float]:
        """Root -> largest value to represent, for each set that can be shifted and gains by it."""
        fixed = {self.root(name) for name in self._fixed}
        fixed |= {self.root(name) for name in self._quantized - highs.keys()}
        found: dict[str, float] = {}
        for name in sorted(self._quantized & highs.keys()):
            if (root := self.root(name)) not in fixed:
                found[root] = max(found.get(root, 0.0), highs[name])
        return found

    def _take(self, node: NodeProto) -> None:
        if _commutes(node, self._graph):
            for name in _data_inputs(node):
                self._parents[self.root(name)] = self.root(node.output[0])
                if name in self._graph.initializers:
                    self._fix(name)
            return
        if node.op_type == "Add" and self._balanced(node):
            return
        if not _is_layer(node, self._graph.initializers):
            self._fix(*node.input, *node.output)
        elif not _reads_shifted(node):
            self._fix(node.input[0])

    def _balanced(self, node: NodeProto) -> bool:
        """Whether a layer that only this Add reads can balance the shifts of the others."""
        constants = self._graph.initializers
        if any(name in constants for name in node.input):
            return True
        for branch, other in (node.input, reversed(node.input)):
            maker = self._graph.producers.get(branch)
            alone = self._graph.only_consumer(branch) is not None and branch not in self._quantized
            if alone and branch != other and maker is not None and _is_layer(maker, constants):
                self.sums[node.output[0]] = (other, branch)
                self._fix(branch)
                return True
        return False

    def _fix(self, *tensors: str) -> None:
        self._fixed.update(tensors)


class _Shifter:
    """Shifts the activations of a graph, in place.

    Attributes:
        too_large: roots of shifts that a bias cannot hold; none on success.
    """

    def __init__(self, model: ModelProto, walk: _Walk, steps: Mapping[str, float], *, most: float) -> None:
        self.too_large: set[str] = set()
        self._most = most
        self._graph = model.graph
        self._walk, self._steps = walk, steps
        self._constants = edit.initializers(model.graph)
        self._names = edit.Names(model.graph)

    def shift(self) -> None:
        """Change the constants and operators that make and read shifted activations."""
        balance = {
            branch: self._by(other) - self._by(total) for total, (other, branch) in self._walk.sums.items()
        }
        for node in self._graph.node:
            made = self._by(node.output[0])
            if node.op_type == "Relu" and made:
                node.op_type = "Clip"
                node.input.append(self._constant(f"{node.output[0]}.low", np.array(-made)))
            elif node.op_type == "Clip" and made:
                for index, name in enumerate(node.input[1:], start=1):
                    if name:
                        self._add(node, index, np.array(-made))
            elif node.op_type == "Add" and (constant := self._constant_input(node)) is not None:
                self._add(node, constant, np.array(self._by(node.input[1 - constant]) - made))
            elif _is_layer(node, self._constants):
                more = balance.get(node.output[0], 0.0) - made
                self._add_to_layer(node, self._by(node.input[0]), more)

    def _by(self, tensor: str) -> float:
        return _ZERO * self._steps.get(self._walk.root(tensor), 0.0)

    def _constant_input(self, node: NodeProto) -> int | None:
        return next((i for i, name in enumerate(node.input) if name in self._constants), None)

    def _add_to_layer(self, node: NodeProto, read: float, more: float) -> None:
        if not read and not more:
            return
        if node.op_type == "BatchNormalization":
            self._add(node, 2, np.array(more))
            self._add(node, 3, np.array(-read))
            return
        axis = edit.weight_axis(node, self._constants)
        weight = np.moveaxis(edit.array(self._constants[node.input[1]]), axis or 0, 0).astype(np.float64)
        values = read * weight.reshape(len(weight), -1).sum(axis=1) + more
        if len(node.input) > 2 and node.input[2]:
            self._add(node, 2, values)
        else:
            del node.input[2:]
            node.input.append(self._constant(f"{node.name}.bias", values))
        if np.abs(edit.array(self._constants[node.input[2]])).max(initial=0) > self._most:
            self.too_large.add(self._walk.root(node.input[0] if read else node.output[0]))

    def _add(self, node: NodeProto, index: int, values: NDArray[np.float64]) -> None:
        if values.any():
            old = edit.array(self._constants[node.input[index]]).astype(np.float64)
            node.input[index] = self._constant(f"{node.input[index]}.centered", old + values)

    def _constant(self, stem: str, values: NDArray[np.float64]) -> str:
        name = self._names.fresh(stem)
        tensor = edit.tensor_from_array(name, values.astype(np.float32))
        self._graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name


def _commutes(node: NodeProto, graph: Wiring) -> bool:
    """Whether a shift of the data inputs shifts the output by as much."""
    if node.op_type == "AveragePool":
        return not (edit.attribute(node, "count_include_pad", 0) and _is_padded(node))
    if node.op_type == "Clip":
        return all(name in graph.initializers for name in node.input[1:] if name)
    return node.op_type in _COMMUTES


def _is_layer(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a node has constants that can take up a shift of its output."""
    if node.op_type == "BatchNormalization":
        return not edit.attribute(node, "training_mode", 0) and all(n in constants for n in node.input[1:])
    axis = edit.weight_axis(node, constants)
    if axis is None or node.op_type == "MatMul":
        return False
    if (edit.attribute(node, "alpha", 1.0), edit.attribute(node, "beta", 1.0)) != (1.0, 1.0):
        return False
    bias = node.input[2] if len(node.input) > 2 else ""
    outputs = constants[node.input[1]].dims[axis]
    return not bias or (bias in constants and list(constants[bias].dims) == [outputs])


def _reads_shifted(node: NodeProto) -> bool:
    """Whether a layer can take up a shift of its input: zero padding would not be shifted."""
    return node.op_type != "Conv" or not _is_padded(node)


def _is_padded(node: NodeProto) -> bool:
    automatic = edit.attribute(node, "auto_pad", "NOTSET")
    return automatic.startswith("SAME") or (automatic == "NOTSET" and any(edit.attribute(node, "pads", [])))
