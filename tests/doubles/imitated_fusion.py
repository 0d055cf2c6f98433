"""What is left of a graph between the kernels of an imitated engine, and how TensorRT emits it.

Fusion is as in builds of TensorRT for RTX 1.7.1 (tests/runtimes/rtx/test_emission.py): a kernel takes in the
activation behind a layer and the quantization behind that, so that integers remain, and dequantizes inside.
Debug tensors are as NVIDIA's developer guide has them ("Debug Tensors"): the listener is called while the
work is queued, the values are there once its stream has come so far, and are gone when the call is over.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

_ACTIVATIONS = {"Relu", "Clip", "Sigmoid", "HardSwish"}
# Formats that the inspector names, and how many channels are padded to.
FORMATS = {
    "int8": ("Thirty-two wide channel vectorized row major Int8 format", 32),
    "fp16": ("Channel major FP16 format where channel % 8 == 0", 8),
    "fp32": ("Row major linear FP32", 1),
}


@dataclass
class Kernel:
    """Nodes that run as one, and the tensor that they leave."""

    nodes: list[NodeProto]
    output: str
    name: str


def kernels(model: ModelProto, *, internal: bool) -> list[Kernel]:
    """Kernels of a graph. `internal`: tensors between them have names as Myelin's, not those of the graph."""
    graph = model.graph
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def remains(node: NodeProto) -> bool:
        after = readers.get(node.output[0], [])
        if node.output[0] in outputs:
            return True
        if node.op_type in ("DequantizeLinear", "Cast") or not after:
            return False
        if len(after) == 1 and after[0].op_type in _ACTIVATIONS:
            return False
        return not all(each.op_type == "QuantizeLinear" for each in after)

    makers = {name: node for node in graph.node for name in node.output}
    left = {node.output[0] for node in graph.node if remains(node)}
    found = []
    for node in graph.node:
        if node.output[0] in left:
            nodes, pending = {node.name: node}, list(node.input)
            while pending:
                before = makers.get(name := pending.pop())
                if before is not None and name not in left and before.name not in nodes:
                    nodes[before.name] = before
                    pending += before.input
            number = len(found) + 3
            plain = node.output[0] in outputs or not internal
            own = node.output[0] if plain else f"__myln_k_arg__bb1_{number}_myl0"
            found.append(Kernel(list(nodes.values()), node.output[0], own))
    return found


def with_scales(model: ModelProto, factors: dict[str, float], *, coarse: bool) -> ModelProto:
    """A graph whose quantization of some tensors has another scale; `coarse`: its reverse as well."""
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {each.name: each for each in graph.initializer}
    for node in list(graph.node):
        tensor = node.input[0]
        while tensor in makers and makers[tensor].op_type == "Cast":
            tensor = makers[tensor].input[0]
        if node.op_type == "QuantizeLinear" and tensor in factors:
            scale = numpy_helper.to_array(constants[node.input[1]])
            wrong = f"{node.input[1]}.wrong"
            graph.initializer.append(
                numpy_helper.from_array((scale * factors[tensor]).astype(scale.dtype), wrong)
            )
            behind = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in node.output]
            for each in (node, *(behind if coarse else ())):
                each.input[1] = wrong
    return changed


def values_of(model: ModelProto, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Every tensor of a graph for a batch."""
    graph = ModelProto()
    graph.CopyFrom(model)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(graph).run(None, {graph.graph.input[0].name: images}, intermediate=True)
    return {name: np.asarray(value) for name, value in found.items() if value is not None}


def packed(values: NDArray[Any], kind: str) -> bytes:
    """Values in the format of their type: (N, C, H, W) by channels, which are padded; others row by row."""
    _, multiple = FORMATS[kind]
    if values.ndim != 4 or multiple == 1:
        return np.ascontiguousarray(values).tobytes()
    n, c, h, w = values.shape
    whole = np.zeros((n, -(-c // multiple) * multiple, h, w), values.dtype)
    whole[:, :c] = values
    if kind == "fp16":
        return np.ascontiguousarray(whole.transpose(0, 2, 3, 1)).tobytes()
    blocks = whole.reshape(n, -1, multiple, h, w).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(blocks).tobytes()


def kind_of(values: NDArray[Any]) -> str:
    return {np.dtype(np.int8): "int8", np.dtype(np.float16): "fp16"}.get(values.dtype, "fp32")


def emit(
    trt: Any, cuda: Any, listener: Any, engine: Any, images: NDArray[Any], stream: int, *, capsule: bool
) -> None:
    """Call a listener for each tensor between kernels; `images`: memory of the input, filled by then."""
    shapes, found = shapes_of(engine, images), {}
    kinds = {"int8": trt.DataType.INT8, "fp16": trt.DataType.HALF, "fp32": trt.DataType.FLOAT}
    for kernel in engine.kernels:
        if kernel.output in engine.values:
            continue
        kind, open_ = kind_of(shapes[kernel.output]), [True]
        nbytes = len(packed(shapes[kernel.output], kind))
        memory = ctypes.create_string_buffer(b"\xff" * nbytes, nbytes)

        def fill(_at, kernel=kernel, kind=kind, memory=memory, open_=open_):
            if open_[0]:
                if not found:
                    found.update(values_of(engine.model, images))
                content = packed(found[kernel.output], kind)
                ctypes.memmove(memory, content, len(content))

        cuda.enqueue(fill)
        address: Any = ctypes.addressof(memory)
        if capsule:  # as the bindings' signature has it
            new = ctypes.pythonapi.PyCapsule_New
            new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
            address = new(address, None, None)
        dims = list(shapes[kernel.output].shape)
        listener.process_debug_tensor(
            address, trt.TensorLocation.DEVICE, kinds[kind], dims, kernel.name, stream
        )
        open_[0] = False
        ctypes.memset(memory, 0xFF, nbytes)


def shapes_of(engine: Any, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A value of each tensor, for its shape and type; kept, as they are always the same."""
    if images.shape not in engine.shapes:
        engine.shapes[images.shape] = values_of(engine.model, np.zeros(images.shape, images.dtype))
    return engine.shapes[images.shape]


def layers_of(engine: Any, *, old: bool) -> list[dict[str, Any]]:
    """The kernels as the inspector reports them: names and formats of tensors, and nodes as metadata."""
    entry = engine.model.graph.input[0]
    lengths = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    shapes = shapes_of(engine, np.zeros(lengths, np.float32))
    names = {kernel.output: kernel.name for kernel in engine.kernels}
    layers = []
    for place, kernel in enumerate(engine.kernels):
        values = shapes[kernel.output]
        kind = kind_of(values)
        words = FORMATS[kind][0] if values.ndim == 4 else {"int8": "Int8", "fp16": "Half"}.get(kind, "Float")
        datatype = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}[kind]
        tensor = {"Format/Datatype": words} if old else {"Format": words, "Datatype": datatype}
        read = next((names[n] for node in kernel.nodes for n in node.input if n in names), entry.name)
        layers.append(
            {
                "Name": f"__myl_{place}",
                "LayerType": "kgen",
                "Inputs": [{"Name": read}],
                "Outputs": [{"Name": kernel.name, "Dimensions": list(values.shape), **tensor}],
                "Metadata": "\x1e".join(f"[ONNX Layer: {node.name}]" for node in kernel.nodes),
            }
        )
    return layers
