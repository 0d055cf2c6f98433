"""Makes quantized activations after a Relu unsigned, so that ONNX Runtime computes in integers on a CPU.

It fuses DequantizeLinear, Conv and QuantizeLinear to QLinearConv only if nothing is between them, and on x86
its kernels for UINT8 activations are ten times as fast as those for INT8. Rounding is monotone, so a Relu or
a Clip before a QuantizeLinear is a Clip of its integers. With zero point 0, a Relu is the saturation of UINT8
at 0. With zero point 128, the Clip of a centered activation is the saturation of INT8, and is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from cnnx.graph import edit
from cnnx.graph.edit import Names, Wiring

# Clip and MaxPool take UINT8 from opset 12 on.
_OPSET = 12


def with_unsigned_activations(model: ModelProto) -> ModelProto:
    """A graph with the same integers; the input is not changed.

    Where a convolution, a Relu or Clip and perhaps max pooling end in one QuantizeLinear, quantization comes
    directly after the convolution. Graphs below opset 12 stay as they are.
    """
    result = ModelProto()
    result.CopyFrom(model)
    if edit.opset(model) < _OPSET:
        return result
    wires, names = edit.wiring(model.graph), Names(model.graph)
    constants: dict[int, str] = {}
    replaced: dict[str, list[NodeProto]] = {}

    def constant(value: int) -> str:
        return constants.setdefault(value, names.fresh(f"cnnx.uint8.{value}"))

    for node in model.graph.node:
        chain = _chain(node, wires)
        if not chain:
            continue
        *pools, quantizer = chain
        found = _levels(node, quantizer, wires)
        if found is None:
            continue
        integers, scale = quantizer.output[0], quantizer.input[1]
        zero, low, high = constant(found.zero), found.low, found.high
        clips = (low, high) != (0, 255)
        steps = [names.fresh(f"{integers}.{index}") for index in range(len(pools) + clips)]
        ends = [*steps, integers]
        made = [helper.make_node("QuantizeLinear", [node.input[0], scale, zero], [ends[0]], name=ends[0])]
        if clips:
            clip = [ends[0], constant(low), constant(high)]
            made.append(helper.make_node("Clip", clip, [ends[1]], name=names.fresh(f"{integers}.clip")))
        after = ends[1:] if clips else ends
        made += [_between(*each) for each in zip(pools, after, after[1:], strict=False)]
        replaced |= {node.name: made, **{each.name: [] for each in chain}}
        for reader in wires.consumers.get(integers, []):
            replaced[reader.name] = [_with_zero(reader, zero)]
    if replaced:
        nodes = [each for node in model.graph.node for each in replaced.get(node.name, [node])]
        edit.replace_nodes(result.graph, nodes)
        result.graph.initializer.extend(
            edit.tensor_from_array(name, np.array(value, np.uint8)) for value, name in constants.items()
        )
        del result.graph.value_info[:]  # types have changed
    return result


@dataclass(frozen=True, slots=True)
class _Levels:
    """Zero point, and bounds of the integers, all in 0..255."""

    zero: int
    low: int
    high: int


def _levels(node: NodeProto, quantizer: NodeProto, wires: Wiring) -> _Levels | None:
    """How integers after a Relu or a Clip are stored; None if a bound or the scale is not a constant."""
    if node.op_type == "Relu":
        return _Levels(0, 0, 127)
    names = [name for name in (*node.input[1:3], quantizer.input[1]) if name]
    if any(name not in wires.initializers for name in names):
        return None
    scale = edit.array(wires.initializers[quantizer.input[1]]).astype(np.float32)
    bounds = []
    for place, otherwise in ((1, -128.0), (2, 127.0)):
        name = node.input[place] if len(node.input) > place else ""
        value = edit.array(wires.initializers[name]).astype(np.float32) / scale if name else otherwise
        bounds.append(int(np.clip(np.rint(value), -128, 127)))
    zero = 0 if bounds[0] >= 0 else 128
    high = zero + bounds[1] if zero == 0 or bounds[1] < 127 else 255
    return _Levels(zero, zero + bounds[0], high)


def _chain(relu: NodeProto, wires: Wiring) -> list[NodeProto]:
    """Max poolings after a convolution's Relu or Clip, and the QuantizeLinear at their end; empty if none."""
    if relu.op_type not in ("Relu", "Clip"):
        return []
    conv = wires.producers.get(relu.input[0])
    if conv is None or conv.op_type != "Conv" or wires.only_consumer(relu.input[0]) is None:
        return []
    chain, tensor = list[NodeProto](), relu.output[0]
    while (reader := wires.only_consumer(tensor)) is not None and reader.op_type == "MaxPool":
        if len(reader.output) > 1:
            return []
        chain.append(reader)
        tensor = reader.output[0]
    if reader is None or not _is_symmetric(reader, wires) or reader.output[0] in wires.outputs:
        return []
    readers = wires.consumers.get(reader.output[0], [])
    return [*chain, reader] if all(each.op_type == "DequantizeLinear" for each in readers) else []


def _is_symmetric(node: NodeProto, wires: Wiring) -> bool:
    """Whether it is a QuantizeLinear to INT8 with zero point 0 and one scale."""
    if node.op_type != "QuantizeLinear" or len(node.input) < 3:
        return False
    zero = wires.initializers.get(node.input[2])
    return (
        zero is not None
        and zero.data_type == TensorProto.INT8
        and not zero.dims
        and not edit.array(zero).any()
    )


def _between(pool: NodeProto, source: str, output: str) -> NodeProto:
    found = NodeProto()
    found.CopyFrom(pool)
    found.input[0], found.output[0] = source, output
    return found


def _with_zero(dequantizer: NodeProto, zero: str) -> NodeProto:
    found = NodeProto()
    found.CopyFrom(dequantizer)
    found.input[2] = zero
    return found
