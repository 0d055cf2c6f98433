"""Brings floating-point types and constants into one form, and refuses networks in training mode."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.graph.policy.rules import FP16_MAX

_OTHER_FLOATS = edit.FLOATS - {edit.FLOAT}
# Attributes that state an element type.
_TYPES = ("to", "dtype", "output_datatype", "stash_type")
# Operators whose constants are trained: an infinite one is damage and not a bound or a mask.
_TRAINED = frozenset(
    {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "InstanceNormalization"}
)


def refuse_training(model: ModelProto) -> None:
    """Raise for a network in training mode, which depends on the batch and on chance.

    A weight that is standardized by its own statistics, as in NFNets, depends on neither.

    Raises:
        GraphError: a BatchNormalization or Dropout is in training mode.
    """
    constants = edit.initializers(model.graph)
    changing = {value.name for value in edit.data_inputs(model.graph)}
    for node in model.graph.node:
        of_images = not changing.isdisjoint(node.input)
        changing.update(node.output if of_images else ())
        if _trains(node, edit.opset(model), constants) and (of_images or node.op_type == "Dropout"):
            raise GraphError(
                f"{node.op_type} is in training mode: its output depends on the batch or on chance",
                where=f"node {edit.label(node)}",
                hint="export the network in evaluation mode: call model.eval() before torch.onnx.export",
            )


def _trains(node: NodeProto, version: int, constants: dict[str, TensorProto]) -> bool:
    if node.op_type == "BatchNormalization":
        # Before opset 14, reading the statistics of the batch was what put it into training mode.
        return bool(edit.attribute(node, "training_mode", 0)) or (version < 14 and len(node.output) > 1)
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
        return bool(edit.array(constants[node.input[2]]).any())
    return False


def widen(model: ModelProto) -> str:
    """Make every floating-point tensor float32, in place. Returns the other types of weights, in words."""
    others = [tensor for tensor in model.graph.initializer if tensor.data_type in _OTHER_FLOATS]
    changed = {edit.type_name(tensor.data_type).lower() for tensor in others}
    for tensor in others:
        _widen_tensor(tensor)
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.type == AttributeProto.TENSOR:
                _widen_tensor(entry.t)
            elif entry.name in _TYPES and entry.i in _OTHER_FLOATS:
                entry.i = edit.FLOAT
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type in _OTHER_FLOATS:
            value.type.tensor_type.elem_type = edit.FLOAT
    del model.graph.value_info[:]
    return " and ".join(sorted(changed))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type not in _OTHER_FLOATS:
        return
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, which is refused later
        tensor.CopyFrom(edit.tensor_from_array(tensor.name, edit.array(tensor).astype(np.float32)))


def finite(model: ModelProto) -> None:
    """Replace infinite bounds, masks and pads by what TensorRT accepts. Edits in place.

    An infinite bound of Clip is dropped, a Pad with -inf becomes the padding of the MaxPool that reads it,
    and any other infinity that is not a trained weight becomes the largest FP16 value.
    """
    graph = edit.wiring(model.graph)
    infinite = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type in edit.FLOATS and np.isinf(edit.array(tensor)).any()
    }
    for node in model.graph.node:
        if node.op_type == "Clip":
            for index in range(1, len(node.input)):
                if node.input[index] in infinite:
                    node.input[index] = ""
        elif node.op_type == "ConstantOfShape":
            for entry in node.attribute:
                entry.t.CopyFrom(_bounded(entry.t))
    _pads_into_pools(model, infinite)
    for tensor in model.graph.initializer:
        readers = {node.op_type for node in graph.consumers.get(tensor.name, [])}
        if tensor.name in infinite and not readers & _TRAINED:
            tensor.CopyFrom(_bounded(tensor))


def _bounded(tensor: TensorProto) -> TensorProto:
    """The tensor with infinities replaced by the largest FP16 value of the same sign."""
    values = edit.array(tensor)
    if tensor.data_type not in edit.FLOATS or not np.isinf(values).any():
        return tensor
    bounded = np.where(np.isinf(values), np.copysign(FP16_MAX, values), values).astype(values.dtype)
    return edit.tensor_from_array(tensor.name, bounded)


def _pads_into_pools(model: ModelProto, infinite: set[str]) -> None:
    """Fold a Pad of height and width with -inf into the MaxPool that reads it, whose own padding is -inf."""
    graph, removed = edit.wiring(model.graph), set()
    for pool in model.graph.node:
        pad = graph.producers.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        if pad is None or pad.op_type != "Pad" or graph.only_consumer(pad.output[0]) is None:
            continue
        value = pad.input[2] if len(pad.input) > 2 else ""
        if value not in infinite or not (edit.array(graph.initializers[value]) < 0).all():
            continue
        own = list(edit.attribute(pool, "pads", [0, 0, 0, 0]))
        kernel = list(edit.attribute(pool, "kernel_shape"))
        pads = _spatial_pads(pad, graph)
        if pads is None or len(own) != 4 or edit.attribute(pool, "auto_pad", "NOTSET") != "NOTSET":
            continue
        total = [a + b for a, b in zip(pads, own, strict=True)]
        if any(length >= kernel[axis % 2] for axis, length in enumerate(total)):
            continue
        kept = [entry for entry in pool.attribute if entry.name != "pads"]
        del pool.attribute[:]
        pool.attribute.extend([*kept, helper.make_attribute("pads", total)])
        pool.input[0] = pad.input[0]
        removed.add(pad.output[0])
    edit.replace_nodes(model.graph, [n for n in model.graph.node if n.output[0] not in removed])


def _spatial_pads(pad: NodeProto, graph: edit.Wiring) -> list[int] | None:
    """Top, left, bottom and right of a Pad of an image; None for any other Pad."""
    lengths = graph.initializers.get(pad.input[1])
    if lengths is None or edit.attribute(pad, "mode", "constant") != "constant":
        return None
    pads = [int(n) for n in edit.array(lengths).reshape(-1)]
    axes = list(range(4))
    if len(pad.input) > 3 and pad.input[3]:
        if pad.input[3] not in graph.initializers:
            return None
        axes = [int(n) % 4 for n in edit.array(graph.initializers[pad.input[3]]).reshape(-1)]
    if len(pads) != 2 * len(axes) or min(pads, default=-1) < 0:
        return None
    whole = dict.fromkeys(range(8), 0)
    for place, axis in enumerate(axes):
        whole[axis], whole[axis + 4] = pads[place], pads[place + len(axes)]
    return None if any(whole[axis] for axis in (0, 1, 4, 5)) else [whole[axis] for axis in (2, 3, 6, 7)]
