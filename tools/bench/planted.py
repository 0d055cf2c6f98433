"""Plants faults in graphs and images, and simulates the noise between two runtimes.

Used by tools/bench/selftest.py and by the self-test's own tests.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Images = NDArray[np.float32]
Graph = onnx.ModelProto

FP16_STEP, FP32_STEP = 2.0**-11, 2.0**-22
# Operators without arithmetic: all runtimes give the same bits.
_EXACT = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "Relu",
        "MaxPool",
        "Reshape",
        "Flatten",
        "Transpose",
        "Concat",
        "Slice",
        "Split",
        "Identity",
        "Cast",
        "Constant",
        "Shape",
        "Gather",
        "Squeeze",
        "Unsqueeze",
        "Clip",
        "Pad",
        "Expand",
    }
)


def with_noise(graph: Graph, step: float) -> Graph:
    """The graph with each computed tensor multiplied by 1 + step x u; u is uniform with variance 1."""
    noisy = copy.deepcopy(graph)
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in (*onnx.shape_inference.infer_shapes(graph).graph.value_info, *graph.graph.output)
    }
    constant = {tensor.name for tensor in graph.graph.initializer}
    nodes = []
    for node in noisy.graph.node:
        nodes.append(node)
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
        elif node.op_type not in _EXACT:
            for place, name in enumerate(list(node.output)):
                if types.get(name) in (TensorProto.FLOAT, TensorProto.FLOAT16):
                    node.output[place] = f"{name}/exact"
                    nodes += _jitter(name, step, types[name])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del noisy.graph.node[:]
    noisy.graph.node.extend(copies)
    del noisy.graph.value_info[:]
    return noisy


def _jitter(name: str, step: float, kind: int) -> Iterator[onnx.NodeProto]:
    wide, noise, scaled, total = (f"{name}/{part}" for part in ("wide", "noise", "scaled", "total"))
    yield helper.make_node("Cast", [f"{name}/exact"], [wide], to=TensorProto.FLOAT)
    most = step * 3**0.5
    yield helper.make_node(
        "RandomUniformLike", [wide], [noise], dtype=TensorProto.FLOAT, low=-most, high=most
    )
    yield helper.make_node("Mul", [wide, noise], [scaled])
    yield helper.make_node("Add", [wide, scaled], [total])
    yield helper.make_node("Cast", [total], [name], to=kind)


def graph_faults(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """Faults of a graph: family, "family: description", and the faulty graph."""
    scales = _activation_scales(graph)
    for place, name in _spread(scales):
        for factor in (16, 1 / 2, 2, 1.1):
            yield f"wrong scale: {place} tensor x{factor:g}", scaled(graph, [name], factor)
    if scales:
        yield "wrong scale: all x2", scaled(graph, scales, 2)
        yield "wrong scale: all x1.1", scaled(graph, scales, 1.1)
    for place, name in _spread(_weights(graph)):
        for what, damage in DAMAGE.items():
            yield f"damaged weight: {what}, {place} layer", with_weight(graph, name, damage)


def image_faults(crops: NDArray[np.uint8], images: Images) -> Iterator[tuple[str, Images]]:
    """Faults in the preprocessing of pixels (N, H, W, C)."""
    if crops.shape[-1] == 3:
        yield "swapped channels: BGR", np.ascontiguousarray(images[:, ::-1])
        layout = images.transpose(0, 2, 3, 1).reshape(images.shape)
        yield "wrong layout: NHWC read as NCHW", np.ascontiguousarray(layout)
    yield "wrong layout: rows and columns exchanged", np.ascontiguousarray(images.transpose(0, 1, 3, 2))
    pixels = crops.transpose(0, 3, 1, 2).astype(np.float32)
    yield "wrong mean and std: none, pixels / 255", pixels / np.float32(255)
    yield "wrong mean and std: none, pixels as they are", pixels
    yield "wrong mean and std: std x1.1", (images / 1.1).astype(np.float32)


def more_image_faults(crops: NDArray[np.uint8], images: Images) -> Iterator[tuple[str, Images]]:
    """Further faults in the preprocessing, beside `image_faults`."""
    if crops.shape[-1] == 3:
        yield "swapped channels: GRB", np.ascontiguousarray(images[:, [1, 0, 2]])
        yield "swapped channels: gray for all three", np.repeat(images.mean(1, keepdims=True), 3, axis=1)
    yield "wrong mean: 0.25 of a standard deviation", (images + np.float32(0.25)).astype(np.float32)
    yield "wrong mean: 1 standard deviation", (images + np.float32(1)).astype(np.float32)
    yield "wrong std: x2", (images / 2).astype(np.float32)
    yield "wrong std: x0.5", (images * 2).astype(np.float32)
    yield "wrong crop: moved by two pixels", np.roll(images, (2, 2), axis=(2, 3))
    yield "wrong crop: mirrored", np.ascontiguousarray(images[..., ::-1])
    small = images[:, :, ::2, ::2].repeat(2, axis=2).repeat(2, axis=3)
    yield "wrong resize: half the resolution", np.ascontiguousarray(small[:, :, : images.shape[2]])


def logit_faults(logits: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Faults that mix up images, in batches of eight."""
    order = np.arange(len(logits)).reshape(-1, 8) if len(logits) % 8 == 0 else np.arange(len(logits))[None]
    yield "wrong order: batches reversed", logits[order[:, ::-1].ravel()]
    stale = logits.copy()
    stale[7::8] = logits[6::8][: len(stale[7::8])]
    yield "wrong order: the last of eight repeats the seventh", stale
    few = logits.copy()
    some = np.linspace(0, len(logits) - 2, max(4, len(logits) * 3 // 100), dtype=int)
    few[some] = logits[some + 1]
    yield "wrong order: 3 % of the images have another's logits", few


def scaled(graph: Graph, scales: list[str], factor: float) -> Graph:
    """Multiply the activation scales of Q and DQ by a factor."""
    wrong = copy.deepcopy(graph)
    made = {node.output[0]: node for node in wrong.graph.node if node.op_type == "QuantizeLinear"}
    also = {
        node.input[1]
        for node in wrong.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in made
        and made[node.input[0]].input[1] in scales
    }
    for tensor in wrong.graph.initializer:
        if tensor.name in also | set(scales):
            _replace(tensor, numpy_helper.to_array(tensor) * factor)
    return wrong


def with_weight(graph: Graph, name: str, damage: Callable[[NDArray[Any]], NDArray[Any]]) -> Graph:
    """Damage one weight tensor."""
    wrong = copy.deepcopy(graph)
    [tensor] = [each for each in wrong.graph.initializer if each.name == name]
    _replace(tensor, damage(numpy_helper.to_array(tensor).copy()))
    return wrong


def _bit(weights: NDArray[Any]) -> NDArray[Any]:
    """The highest bit whose flip keeps the largest weight finite: an exponent bit, or the sign of an INT8."""
    flat = weights.reshape(-1)
    place = int(np.abs(flat.astype(np.float64)).argmax())
    wide = 8 * flat.dtype.itemsize
    bits = flat.view({8: np.uint8, 16: np.uint16, 32: np.uint32}[wide])
    for bit in (7,) if wide == 8 else (wide - 2, wide - 3):
        bits[place] ^= bits.dtype.type(1 << bit)
        if np.isfinite(flat[place].astype(np.float64)) and abs(float(flat[place])) < 6e4:
            break
        bits[place] ^= bits.dtype.type(1 << bit)
    return weights


def _channel(weights: NDArray[Any]) -> NDArray[Any]:
    """Set the output channel with the largest weights to zero."""
    sizes = np.abs(weights.astype(np.float64)).reshape(len(weights), -1).sum(axis=1)
    weights[int(sizes.argmax())] = 0
    return weights


def _order(weights: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.roll(weights, 1, axis=0))


DAMAGE: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "one bit of the largest": _bit,
    "a channel zero": _channel,
    "channels permuted": _order,
}


def _activation_scales(graph: Graph) -> list[str]:
    constants = {tensor.name for tensor in graph.graph.initializer}
    quantizers = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    return list(dict.fromkeys(node.input[1] for node in quantizers if node.input[0] not in constants))


def _weights(graph: Graph) -> list[str]:
    """Weight tensors of convolutions and matrix products, or the inputs of their DequantizeLinear."""
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    sources = {
        node.output[0]: node.input[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"
    }
    found = []
    for node in graph.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            name = sources.get(node.input[1], node.input[1])
            if name in constants and len(constants[name].dims) >= 2:
                found.append(name)
    return list(dict.fromkeys(found))


def _spread(names: list[str]) -> Iterator[tuple[str, str]]:
    if names:
        yield from (("first", names[0]), ("middle", names[len(names) // 2]), ("last", names[-1]))


def _replace(tensor: onnx.TensorProto, values: NDArray[Any]) -> None:
    kind = numpy_helper.to_array(tensor).dtype
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.astype(kind)), tensor.name))
