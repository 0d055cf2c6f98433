"""Precision as types: a strongly typed graph in which every tensor has the type TensorRT will use.

TensorRT 11 has no FP16 flag any more; an engine is what the graph's types say. Inputs and outputs of
the graph stay FP32, layers that the plan holds in FP32 are islands between Casts.
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
    """A new graph, typed as the plan says; INT8 layers compute in FP16 what is not INT8.

    A tensor is cast once for each type it is read in. A QuantizeLinear keeps the type of what it reads
    (FP32 for the graph's input, which saves a Cast), its DequantizeLinear gives FP16. Operators whose
    result has no type of its inputs (Cast, ConstantOfShape) are left as they are.

    Args:
        model: FP32 graph, with or without Q/DQ whose scales FP16 can hold; it is not changed.
        plan: of `plan_layers` for the graph before Q/DQ: nodes it does not name are Q/DQ.

    Raises:
        GraphError: a constant of an FP16 layer is beyond FP16's range, or a node has no plan.
    """
    typer = _Typer(model, {layer.node: layer for layer in plan})
    for node in model.graph.node:
        typer.add_node(node)
    return typer.finish()


class _Typer:
    """Builds the typed graph node by node. `_actual` knows the type each activation has in it."""

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
        """Append a node with its float inputs in the type it computes in, and note its outputs' types."""
        places = _typed_places(node, self._version)
        wanted = self._wanted(node, places)
        wired = NodeProto()
        wired.CopyFrom(node)
        for place, tensor in enumerate(node.input):
            if tensor in self._floats:
                wired.input[place] = self._as_type(tensor, wanted if place in places.inputs else FLOAT, node)
        for place, tensor in enumerate(node.output):
            if tensor in self._floats:
                self._actual[tensor] = wanted if place in places.outputs else FLOAT
        self._result.graph.node.append(wired)

    def finish(self) -> ModelProto:
        """The result: outputs cast back to FP32, and the constants that were not converted."""
        graph = self._result.graph
        for value in graph.output:
            if self._actual.get(value.name) == FLOAT16:
                self._widen_output(value.name)
        read = {name for node in graph.node for name in node.input}
        self._give_back_names({new: old for (old, _), new in self._constants.items() if old not in read})
        unchanged = read | {value.name for value in graph.output}
        graph.initializer.extend(t for t in self._source.graph.initializer if t.name in unchanged)
        for place in reversed(range(len(graph.input))):  # weights that were listed as inputs too
            if graph.input[place].name in self._graph.initializers:
                del graph.input[place]
        return self._result

    def _wanted(self, node: NodeProto, places: _Places) -> int:
        """Type a node computes in."""
        if not places.outputs:  # QuantizeLinear, Greater, Shape: they take floats as they come
            kinds = [self._actual[tensor] for tensor in node.input if tensor in self._actual]
            return kinds[0] if kinds else FLOAT
        if node.op_type == "DequantizeLinear":
            readers = self._graph.consumers.get(node.output[0], [])
            return FLOAT if all(self._planned(reader) == FLOAT for reader in readers) else FLOAT16
        return self._planned(node)

    def _planned(self, node: NodeProto) -> int:
        layer = self._layers.get(node.name)
        if layer is None:
            raise GraphError(
                "the plan does not name this node", where=edit.label(node), mend="plan the graph again"
            )
        return FLOAT if layer.precision == "fp32" else FLOAT16

    def _as_type(self, tensor: str, kind: int, node: NodeProto) -> str:
        """Name of a tensor in a type; a Cast or a converted constant is made on first use."""
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
                    f"{name} reaches {largest:.4g}, FP16 ends at {FP16_MAX:g}",
                    where=edit.label(node),
                    mend="let precision.overrides hold this layer in fp32",
                )
            narrow = self._names.fresh(f"{name}.fp16")
            self._result.graph.initializer.append(edit.tensor_from_array(narrow, values.astype(np.float16)))
            self._constants[name, FLOAT16] = narrow
        return self._constants[name, FLOAT16]

    def _give_back_names(self, originals: Mapping[str, str]) -> None:
        """Let converted constants have the names of those that nobody reads any more."""
        graph = self._result.graph
        for tensor in graph.initializer:
            tensor.name = originals.get(tensor.name, tensor.name)
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name in originals:
                    node.input[place] = originals[name]

    def _widen_output(self, output: str) -> None:
        narrow = self._names.fresh(f"{output}.fp16")
        for node in self._result.graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == output:
                        names[place] = narrow
        cast = helper.make_node("Cast", [narrow], [output], name=f"{output}.fp32", to=FLOAT)
        self._result.graph.node.append(cast)


@dataclass(frozen=True, slots=True)
class _Places:
    """Inputs of a node that may be FP16, and outputs that have the type of one of these inputs."""

    inputs: frozenset[int]
    outputs: frozenset[int]


def _typed_places(node: NodeProto, version: int) -> _Places:
    schema = onnx.defs.get_schema(node.op_type, version)
    free = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if {"tensor(float)", "tensor(float16)"} <= set(constraint.allowed_type_strs)
    }
    taken = [_type_parameter(schema.inputs, place) for place in range(len(node.input))]
    given = [_type_parameter(schema.outputs, place) for place in range(len(node.output))]
    return _Places(
        frozenset(place for place, name in enumerate(taken) if name in free),
        frozenset(place for place, name in enumerate(given) if name in free and name in taken),
    )


def _type_parameter(formal: Sequence[onnx.defs.OpSchema.FormalParameter], place: int) -> str:
    """Type parameter of an input or output; a variadic one stands last and counts for all that follow."""
    return str(formal[min(place, len(formal) - 1)].type_str)
