"""A graph that reports, beside its logits, how large each of its activations became."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit

MAXIMA = "cnnx.maxima"


def observed_model(
    model: ModelProto, *, histogram_tensors: Sequence[str] = ()
) -> tuple[ModelProto, tuple[str, ...]]:
    """A new model that also gives the largest absolute value of every float activation of a batch.

    The maxima are taken inside the graph and leave it as one float32 vector, the output `MAXIMA`: a
    few hundred numbers a batch instead of every activation. A NaN or an infinity anywhere in a tensor
    makes its maximum non-finite. The weights are copied once.

    Args:
        model: graph of any batch; it is not changed.
        histogram_tensors: activations to give out whole as well, after the maxima. The graph's own
            inputs may be among them.

    Returns:
        The model, with outputs (those of `model`, `MAXIMA`, `histogram_tensors` not yet among them),
        and the activations' names in the order of the vector: the input first, then in graph order.

    Raises:
        GraphError: a histogram tensor is no float activation of the graph.
    """
    types = edit.value_types(model)
    names = tuple(name for name in _activations(model) if name in types and types[name].is_float)
    for name in histogram_tensors:
        if name not in names:
            raise GraphError("the graph has no float activation of this name", where=name)
    observed = edit.shell(model)
    observed.graph.node.extend(model.graph.node)
    observed.graph.initializer.extend(model.graph.initializer)
    _add_maxima(observed, names)
    given = {value.name for value in observed.graph.output}
    for name in dict.fromkeys(histogram_tensors):
        if name not in given:
            kind = types[name]
            value = helper.make_tensor_value_info(name, kind.elem_type, kind.shape)
            observed.graph.output.append(value)
    return observed, names


def _activations(model: ModelProto) -> list[str]:
    """Tensors that depend on the input: what constant nodes alone make is not an activation."""
    found = {value.name: None for value in edit.data_inputs(model.graph)}
    for node in model.graph.node:
        if any(name in found for name in node.input):
            found.update(dict.fromkeys(name for name in node.output if name))
    return list(found)


def _add_maxima(model: ModelProto, tensors: Sequence[str]) -> None:
    names = edit.Names(model.graph)
    zero, one = names.fresh("cnnx.zero"), names.fresh("cnnx.length_one")
    model.graph.initializer.append(edit.tensor_from_array(zero, np.zeros((), np.float32)))
    model.graph.initializer.append(edit.tensor_from_array(one, np.array([1], np.int64)))
    parts = []
    for tensor in tensors:
        nodes = _maximum(tensor, [names.fresh(f"{tensor}.{step}") for step in _STEPS], zero=zero, one=one)
        model.graph.node.extend(nodes)
        parts.append(nodes[-1].output[0])
    model.graph.node.append(helper.make_node("Concat", parts, [MAXIMA], name=MAXIMA, axis=0))
    model.graph.output.append(helper.make_tensor_value_info(MAXIMA, TensorProto.FLOAT, [len(parts)]))


_STEPS = ("float", "abs", "max", "sum", "nothing", "amax", "maximum")


def _maximum(tensor: str, names: Sequence[str], *, zero: str, one: str) -> list[NodeProto]:
    """max |x| as a vector of one. ONNX Runtime's ReduceMax passes over NaN, a sum does not: 0 * sum is
    added, which is 0 or NaN.
    """
    wide, magnitude, largest, total, nothing, either, vector = names
    return [
        helper.make_node("Cast", [tensor], [wide], name=wide, to=TensorProto.FLOAT),
        helper.make_node("Abs", [wide], [magnitude], name=magnitude),
        helper.make_node("ReduceMax", [magnitude], [largest], name=largest, keepdims=0),
        helper.make_node("ReduceSum", [magnitude], [total], name=total, keepdims=0),
        helper.make_node("Mul", [total, zero], [nothing], name=nothing),
        helper.make_node("Add", [largest, nothing], [either], name=either),
        helper.make_node("Reshape", [either, one], [vector], name=vector),
    ]
