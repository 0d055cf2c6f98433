"""Kernels of a built engine, and the type in which each ONNX node's data reaches its kernel.

`build_log` (TensorRT for RTX) and `inspector` (TensorRT) read the kernels; this module evaluates both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "int8": "int8"}
"""NVIDIA's names for types -> ours."""

# Kernels that do a layer's multiplications. Kernels that pad, transpose or requantize for a layer name it,
# too. "correlation", "gemm", "runtime_fusion": captured from TensorRT for RTX 1.7.1; "CaskConvolution",
# "CaskConvActPool", "MatrixMultiply": TensorRT issues #4020 and #2418; "fusion" (a product with what
# follows it): #4397.
_MULTIPLYING = re.compile("conv|correlation|gemm|matrixmultiply|fusion", re.IGNORECASE)
# How cnnx names the Q/DQ nodes of a tensor.
_QUANTIZED, _DEQUANTIZED = ".quantized", ".dequantized"
# How it names the Cast of a tensor to FP16.
_NARROWED = ".fp16"
_FLOATS = ("fp32", "fp16")
FUSED = " + "
"""Separates the names of fused layers."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of an engine.

    Attributes:
        name: a kernel for one ONNX node has that node's name with a suffix such as "_myl0_1"; a kernel for
            several nodes has their names, separated by " + ".
        kind: "correlation", "CaskConvolution", "gemm", "kgen" (generated, mostly pointwise), ...
        inputs: type of each input: "int8", "fp16", "fp32", or NVIDIA's own name.
        constants: types of weights, scales and biases.
        outputs: type of each output.
        layers: ONNX nodes that it computes, at least in part.
        weight: type of the largest constant, which is the weight of a product; empty if it is not known.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    weight: str = ""


def nodes_in(metadata: str, pattern: re.Pattern[str], names: Collection[str]) -> tuple[str, ...]:
    """Node names in a kernel's metadata, where NVIDIA's format puts brackets around each.

    Args:
        metadata: the text.
        pattern: matches a name without brackets.
        names: known names; those with brackets are looked for as a whole.
    """
    bracketed = (name for name in names if "]" in name and f"[ONNX Layer: {name}]" in metadata)
    return (*pattern.findall(metadata.strip()), *bracketed)


def types_of(kernels: Sequence[Kernel]) -> dict[str, str]:
    """Type in which each ONNX node's data reaches the kernel that does its work.

    Returns:
        node name -> "int8", "fp16", "fp32"; nodes that no kernel names are absent. "int8" means that the
        weights are INT8, too: INT8 data with other weights is reported as "int8 data, fp16 weights".
    """
    nodes = {layer: None for kernel in kernels for layer in kernel.layers}
    types = {node: _type_of(node, _kernel_of(node, kernels)) for node in nodes}
    return {node: found for node, found in types.items() if found is not None}


def mismatches(expected: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """One line per layer that was not found or does not have the expected type."""
    return tuple(
        f"{node}: {found.get(node, 'not found')} instead of {wanted}"
        for node, wanted in expected.items()
        if found.get(node) != wanted
    )


def _kernel_of(node: str, kernels: Iterable[Kernel]) -> Kernel:
    """Kernel that does a node's multiplications: by its name, else by its kind, else the first one."""
    own = re.compile(re.escape(node) + r"_myl\d+_\d+")

    def rank(kernel: Kernel) -> tuple[bool, bool]:
        named = own.fullmatch(kernel.name) is not None or node in kernel.name.split(FUSED)
        return not named, _MULTIPLYING.search(kernel.kind) is None

    return min((kernel for kernel in kernels if node in kernel.layers), key=rank)


def _type_of(node: str, kernel: Kernel) -> str | None:
    if not kernel.inputs:
        return None
    data = kernel.inputs[0]
    if data == "int8" and kernel.constants and "int8" not in kernel.constants:
        return f"int8 data, {kernel.constants[0]} weights"
    if _quantizes_inside(kernel):
        return "int8"
    if data in _FLOATS and kernel.weight in _FLOATS and data != kernel.weight in kernel.inputs:
        # A product and its weight have one type, as networks are strongly typed. The shortcut of a sum that
        # is fused with the product can come first, in the type of the sum.
        return kernel.weight
    return "fp16" if data == "fp32" and _narrows_inside(node, kernel) else data


def _narrows_inside(node: str, kernel: Kernel) -> bool:
    """Whether a kernel casts its data to FP16 itself before it reaches a node with FP16 weights.

    TensorRT for RTX 1.7.1 fuses products of few tokens with the FP32 LayerNormalization or Softmax before
    them. The node of an FP32 island has FP32 weights, and comes before the cast of its result.
    """
    casts = [layer for layer in kernel.layers if layer.endswith(_NARROWED)]
    if not casts or "fp16" not in kernel.constants:
        return False
    before = kernel.layers[: kernel.layers.index(node)]
    if "fp32" not in kernel.constants or any(layer in before for layer in casts):
        return True
    # A head that is named before the cast of the FP32 normalization in front of it.
    return kernel.weight == "fp16" and not any(layer.startswith(f"{node}_output") for layer in casts)


def _quantizes_inside(kernel: Kernel) -> bool:
    """Whether a kernel quantizes its data itself and multiplies it by INT8 weights.

    TensorRT for RTX 1.7.1 fuses a small layer, such as one of squeeze-and-excitation, with the quantization
    before it: the kernel reads floats, and each of its weights is an INT8 constant. A layer whose weights
    were dequantized when the engine was built has floating-point constants instead.
    """
    quantized = {layer.removesuffix(_QUANTIZED) for layer in kernel.layers if layer.endswith(_QUANTIZED)}
    dequantized = {
        layer.removesuffix(_DEQUANTIZED) for layer in kernel.layers if layer.endswith(_DEQUANTIZED)
    }
    weights = dequantized - quantized  # stored as INT8, so that only activations are quantized in a kernel
    return bool(quantized & dequantized and weights) and kernel.constants.count("int8") >= len(weights)
