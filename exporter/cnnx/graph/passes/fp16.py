"""Conversion to a strongly typed graph, in which every tensor has the type that TensorRT will use.

TensorRT 11 has no FP16 flag; the types in the graph decide. Graph inputs and outputs stay FP32. Layers that
the plan keeps in FP32 become islands between Casts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.edit import FLOAT, FLOAT16
from cnnx.graph.policy.placement import LayerPlan
from cnnx.graph.policy.rules import FP16_MAX

_SUFFIX: dict[int, str] = {FLOAT: "fp32", FLOAT16: "fp16"}


def type_fp16(model: ModelProto, plan: Sequence[LayerPlan]) -> ModelProto:
    """A new graph, typed according to the plan; INT8 layers use FP16 for everything that is not INT8.

    A tensor is cast once per type in which it is read. A QuantizeLinear keeps the type of its input (FP32 for
    the graph input, which saves a Cast), and its DequantizeLinear outputs FP16. Operators whose output type
    does not depend on their inputs (Cast, ConstantOfShape) are not changed.

    Args:
        model: FP32 graph, with or without Q/DQ whose scales fit FP16; it is not changed.
        plan: result of `plan_layers` for the graph before Q/DQ; nodes not in the plan must be Q/DQ.

    Raises:
        GraphError: a constant of an FP16 layer exceeds the FP16 range, or a node is not in the plan.
    """
    typer = _Typer(model, {layer.node: layer for layer in plan})
    for node in model.graph.node:
        typer.add_node(node)
    return typer.finish()


class _Typer:
    """Builds the typed graph node by node. `_actual` has the type of each activation in it."""

    def __init__(self, model: ModelProto, layers: Mapping[str, LayerPlan]) -> None:
        self._source = model
        self._layers = layers
        self._version = edit.opset(model)
        self._graph = edit.wiring(model.graph)
        self._names = edit.Names(model.graph)
        self._floats = {name for name, kind in edit.value_types(model).items() if kind.elem_type == FLOAT}
        self._result = edit.shell(model)
        self._actual: dict[str, int] = {value.name: FLOAT for value in edit.data_inputs(model.graph)}
        self._casts: dict[tuple[str, int], str] = {}
        self._constants: dict[tuple[str, int], str] = {}

    def add_node(self, node: NodeProto) -> None:
        """Append a node with its float inputs cast to its compute type, and record its output types."""
        typed = _typed_indices(node, self._version)
        wanted = self._wanted(node, typed)
        wired = NodeProto()
        wired.CopyFrom(node)
        for index, tensor in enumerate(node.input):
            if tensor in self._floats:
                wired.input[index] = self._as_type(tensor, wanted if index in typed.inputs else FLOAT, node)
        for index, tensor in enumerate(node.output):
            if tensor in self._floats:
                self._actual[tensor] = wanted if index in typed.outputs else FLOAT
        self._result.graph.node.append(wired)

    def finish(self) -> ModelProto:
        """Cast the outputs back to FP32, add the unconverted constants, and return the graph."""
        graph = self._result.graph
        for value in graph.output:
            if self._actual.get(value.name) == FLOAT16:
                self._widen_output(value.name)
        read = {name for node in graph.node for name in node.input}
        self._restore_names({new: old for (old, _), new in self._constants.items() if old not in read})
        unchanged = read | {value.name for value in graph.output}
        graph.initializer.extend(t for t in self._source.graph.initializer if t.name in unchanged)
        for index in reversed(range(len(graph.input))):  # weights that were listed as inputs too
            if graph.input[index].name in self._graph.initializers:
                del graph.input[index]
        return self._result

    def _wanted(self, node: NodeProto, typed: _Typed) -> int:
        """Compute type of a node."""
        if not typed.outputs:  # QuantizeLinear, Greater, Shape accept any float type
            kinds = [self._actual[tensor] for tensor in node.input if tensor in self._actual]
            return kinds[0] if kinds else FLOAT
        if node.op_type == "DequantizeLinear":
            readers = self._graph.consumers.get(node.output[0], [])
            return FLOAT if all(self._planned(reader) == FLOAT for reader in readers) else FLOAT16
        return self._planned(node)

    def _planned(self, node: NodeProto) -> int:
        layer = self._layers.get(node.name)
        if layer is None:
            where = f"node {edit.label(node)}"
            raise GraphError("the node is not in the plan", where=where, hint="plan the graph again")
        return FLOAT if layer.precision == "fp32" else FLOAT16

    def _as_type(self, tensor: str, kind: int, node: NodeProto) -> str:
        """Name of a tensor in a type; the Cast or converted constant is added on first use."""
        if tensor in self._graph.initializers:
            return tensor if kind == FLOAT else self._narrow_constant(tensor, node)
        if self._actual[tensor] == kind:
            return tensor
        if (tensor, kind) not in self._casts:
            name = self._names.fresh(f"{tensor}.{_SUFFIX[kind]}")
            self._result.graph.node.append(helper.make_node("Cast", [tensor], [name], name=name, to=kind))
            self._casts[tensor, kind] = name
        return self._casts[tensor, kind]

    def _narrow_constant(self, name: str, node: NodeProto) -> str:
        if (name, FLOAT16) not in self._constants:
            values = edit.array(self._graph.initializers[name])
            largest = max(values.max(), -values.min()) if values.size else 0.0
            if not largest <= FP16_MAX:
                raise GraphError(
                    f"{name} reaches {largest:.4g}, but the largest FP16 value is {FP16_MAX:g}",
                    where=f"node {edit.label(node)}",
                    hint="keep this layer in fp32 with an entry in precision.overrides",
                )
            narrow = self._names.fresh(f"{name}.fp16")
            self._result.graph.initializer.append(edit.tensor_from_array(narrow, values.astype(np.float16)))
            self._constants[name, FLOAT16] = narrow
        return self._constants[name, FLOAT16]

    def _restore_names(self, originals: Mapping[str, str]) -> None:
        """Rename converted constants to the original names that are no longer used."""
        graph = self._result.graph
        for tensor in graph.initializer:
            tensor.name = originals.get(tensor.name, tensor.name)
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in originals:
                    node.input[index] = originals[name]

    def _widen_output(self, output: str) -> None:
        narrow = self._names.fresh(f"{output}.fp16")
        for node in self._result.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == output:
                        names[index] = narrow
        name = self._names.fresh(f"{output}.fp32")  # a layer in FP32 may read it, too, through its own Cast
        cast = helper.make_node("Cast", [narrow], [output], name=name, to=FLOAT)
        self._result.graph.node.append(cast)


@dataclass(frozen=True, slots=True)
class _Typed:
    """Indices of the inputs that may be FP16, and of the outputs with the type of such an input."""

    inputs: frozenset[int]
    outputs: frozenset[int]


def _typed_indices(node: NodeProto, version: int) -> _Typed:
    schema = onnx.defs.get_schema(node.op_type, version)
    free = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if {"tensor(float)", "tensor(float16)"} <= set(constraint.allowed_type_strs)
    }
    taken = [_type_parameter(schema.inputs, index) for index in range(len(node.input))]
    given = [_type_parameter(schema.outputs, index) for index in range(len(node.output))]
    return _Typed(
        frozenset(index for index, name in enumerate(taken) if name in free),
        frozenset(index for index, name in enumerate(given) if name in free and name in taken),
    )


def _type_parameter(formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    """Type parameter of an input or output; the last one may be variadic and apply to all that follow."""
    return str(formal[min(index, len(formal) - 1)].type_str)
