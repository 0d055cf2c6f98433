"""Adds outputs to a graph for the maxima, means and samples of its activations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.edit import ValueType

MAXIMA, MEANS, SAMPLE = "cnnx.maxima", "cnnx.means", "cnnx.sample"

SAMPLED = 4096
"""Maximum number of sampled values per tensor and batch."""

_NEVER_NEGATIVE = frozenset({"HardSigmoid", "Relu", "Sigmoid", "Softmax"})


@dataclass(frozen=True, slots=True)
class ObservedModel:
    """A graph with outputs for its activations.

    Attributes:
        model: the graph with the additional float32 outputs `MAXIMA` and `MEANS`, and `SAMPLE` if activations
            are sampled.
        channels: float activation -> slice of its channels in `MAXIMA` and `MEANS`, the input first, then in
            graph order. A tensor without a channel axis has one channel. A tensor that only a ReLU reads has
            the slice of the ReLU's output, as negative values are cut off in any precision.
        samples: sampled activation -> slice of its values in `SAMPLE`.
    """

    model: ModelProto
    channels: Mapping[str, slice]
    samples: Mapping[str, slice]


def observed_model(model: ModelProto, *, sampled: Sequence[str] = ()) -> ObservedModel:
    """A new model that also outputs the largest absolute value and mean of each channel of its activations.

    The maxima are exact and computed in the graph, so it outputs a few thousand numbers instead of all
    activations. A NaN or infinity in a channel makes its maximum non-finite. Sampled activations also output
    every k-th value in memory order. k is the smallest step that gives at most `SAMPLED` values and is
    coprime to their number. The weights are copied once.

    Args:
        model: graph with any batch; it is not changed. Run a dynamic batch with one image.
        sampled: activations to sample; may include the inputs of the graph.

    Raises:
        GraphError: a sampled tensor is not a float activation of the graph.
    """
    types = edit.value_types(model)
    names = [name for name in activations(model) if name in types and types[name].is_float]
    for name in sampled:
        if name not in names:
            hint = f"choose one of its {len(names)} float activations"
            raise GraphError("the graph has no float activation of this name", where=name, hint=hint)
    writer = _Writer(model, types)
    channels = {name: writer.maxima_of(name) for name in names}
    samples = {name: writer.sample_of(name) for name in dict.fromkeys(sampled)}
    return ObservedModel(writer.finish(), channels, samples)


def activations(model: ModelProto) -> list[str]:
    """Tensors that depend on the input; results of constants alone are not activations."""
    found = {value.name: None for value in edit.data_inputs(model.graph)}
    for node in model.graph.node:
        if any(name in found for name in node.input):
            found.update(dict.fromkeys(name for name in node.output if name))
    return list(found)


class _Writer:
    """Adds the outputs to a graph."""

    def __init__(self, model: ModelProto, types: Mapping[str, ValueType]) -> None:
        self._graph = edit.wiring(model.graph)
        self._types = types
        self._names = edit.Names(model.graph)
        self._observed = edit.shell(model)
        self._observed.graph.node.extend(model.graph.node)
        self._observed.graph.initializer.extend(model.graph.initializer)
        self._axes_are_inputs = edit.opset(model) >= 18
        self._constants: dict[tuple[int, ...], str] = {}
        self._floats: dict[str, str] = {}
        self._watched = 0
        self._slices: dict[str, slice] = {}
        self._parts: dict[str, list[str]] = {"ReduceMax": [], "ReduceMin": [], "ReduceMean": []}
        self._sampled: list[str] = []
        self._sampled_values = 0

    def maxima_of(self, tensor: str) -> slice:
        """Add the maxima and means of a tensor; returns their slice."""
        # Runtimes cannot fuse a ReLU into a layer whose own output is read. Reading the ReLU instead reduces
        # the overhead on ResNet-50 from 1.29 to 1.17 times its time.
        reader = self._graph.only_consumer(tensor)
        if reader is not None and reader.op_type == "Relu":
            tensor = reader.output[0]
        if tensor in self._slices:
            return self._slices[tensor]
        shape = self._types[tensor].shape or ()
        channels = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 1
        axes = [axis for axis in range(len(shape)) if axis != 1 or channels == 1]
        for op, parts in self._parts.items():
            if op == "ReduceMin" and self._is_never_negative(tensor):
                parts.append(self._parts["ReduceMax"][-1])
            else:
                reduced = self._reduce(op, self._as_float(tensor), axes)
                parts.append(self._add("Reshape", [reduced, self._integers(channels)], f"{reduced}.channels"))
        self._slices[tensor] = slice(self._watched, self._watched + channels)
        self._watched += channels
        return self._slices[tensor]

    def sample_of(self, tensor: str) -> slice:
        """Add every k-th value of a tensor; returns their slice in `SAMPLE`."""
        shape = self._types[tensor].shape or ()
        size = math.prod(length if isinstance(length, int) else 1 for length in shape)
        step = max(1, -(-size // SAMPLED))
        while math.gcd(step, size) > 1:  # otherwise it would sample the same few columns of every map
            step += 1
        flat = self._add("Reshape", [self._as_float(tensor), self._integers(-1)], f"{tensor}.flat")
        start, end, axis = self._integers(0), self._integers(np.iinfo(np.int64).max), self._integers(0)
        if step > 1:
            flat = self._add("Slice", [flat, start, end, axis, self._integers(step)], f"{tensor}.sample")
        self._sampled.append(flat)
        first = self._sampled_values
        self._sampled_values += -(-size // step)
        return slice(first, self._sampled_values)

    def finish(self) -> ModelProto:
        """The graph with the added outputs."""
        high, low = (
            self._add("Concat", self._parts[op], f"cnnx.{op}", axis=0) for op in ("ReduceMax", "ReduceMin")
        )
        mean = self._add("Concat", self._parts["ReduceMean"], MEANS, axis=0)
        # ONNX Runtime's ReduceMax ignores NaN, but a mean does not. Add 0 * mean, which is 0 or NaN.
        zero = self._names.fresh("cnnx.zero")
        self._observed.graph.initializer.append(edit.tensor_from_array(zero, np.zeros((), np.float32)))
        either = self._add("Max", [high, self._add("Neg", [low], "cnnx.lowest")], "cnnx.largest")
        nothing = self._add("Mul", [mean, zero], "cnnx.nothing")
        self._add_output(self._add("Add", [either, nothing], MAXIMA), self._watched)
        self._add_output(mean, self._watched)
        if self._sampled:
            self._add_output(self._add("Concat", self._sampled, SAMPLE, axis=0), self._sampled_values)
        return self._observed

    def _as_float(self, tensor: str) -> str:
        if self._types[tensor].elem_type == TensorProto.FLOAT:
            return tensor
        if tensor not in self._floats:
            self._floats[tensor] = self._add("Cast", [tensor], f"{tensor}.float", to=TensorProto.FLOAT)
        return self._floats[tensor]

    def _is_never_negative(self, tensor: str) -> bool:
        producer = self._graph.producers.get(tensor)
        return producer is not None and producer.op_type in _NEVER_NEGATIVE

    def _reduce(self, op: str, tensor: str, axes: list[int]) -> str:
        stem = f"{tensor}.{op}"
        if not axes:
            return self._add(op, [tensor], stem)
        if self._axes_are_inputs:
            return self._add(op, [tensor, self._integers(*axes)], stem, keepdims=0)
        return self._add(op, [tensor], stem, keepdims=0, axes=axes)

    def _integers(self, *values: int) -> str:
        if values not in self._constants:
            self._constants[values] = name = self._names.fresh("cnnx.integers")
            tensor = edit.tensor_from_array(name, np.array(values, np.int64))
            self._observed.graph.initializer.append(tensor)
        return self._constants[values]

    def _add(self, op: str, inputs: Sequence[str], stem: str, **attributes: Any) -> str:
        name = self._names.fresh(stem)
        self._observed.graph.node.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def _add_output(self, name: str, length: int) -> None:
        self._observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [length]))
