"""What a built engine runs, kernel by kernel, and in which type each ONNX node's data reached its own.

`build_log` (TensorRT for RTX) and `inspector` (TensorRT) read kernels; here they are judged alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "int8": "int8"}
"""NVIDIA's words for types -> ours."""

# Kernels that do a layer's multiplying. Others name the layer too: those that pad, transpose or requantize
# for it. "correlation", "gemm", "runtime_fusion": captured from TensorRT for RTX 1.7.1; "CaskConvolution",
# "CaskConvActPool", "MatrixMultiply": TensorRT issues #4020 and #2418; "fusion" (a product with what
# follows it): #4397.
_MULTIPLYING = re.compile("conv|correlation|gemm|matrixmultiply|fusion", re.IGNORECASE)
FUSED = " + "
"""What stands between the names of layers that became one."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of an engine.

    Attributes:
        name: for a kernel that is one ONNX node's own, that node's name with a suffix such as "_myl0_1";
            for one that is several nodes', their names with " + " between.
        kind: "correlation", "CaskConvolution", "gemm", "kgen" (generated, pointwise mostly), ...
        inputs: type of each input: "int8", "fp16", "fp32", or NVIDIA's own word.
        constants: likewise of weights, scales and biases.
        outputs: likewise.
        layers: ONNX nodes it does a part of.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]


def types_of(kernels: Sequence[Kernel]) -> dict[str, str]:
    """In which type each ONNX node's data reached the kernel that does its work.

    Returns:
        node name -> "int8", "fp16", "fp32"; nodes that no kernel names are absent. "int8" says that
        weights were INT8 as well: INT8 data beside other weights is reported as "int8 data, fp16 weights".
    """
    nodes = {layer: None for kernel in kernels for layer in kernel.layers}
    types = {node: _type_of(_kernel_of(node, kernels)) for node in nodes}
    return {node: found for node, found in types.items() if found is not None}


def mismatches(expected: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each layer that is not of the type expected, or that is not found."""
    return tuple(
        f"{node}: {found.get(node, 'not found')} instead of {wanted}"
        for node, wanted in expected.items()
        if found.get(node) != wanted
    )


def _kernel_of(node: str, kernels: Iterable[Kernel]) -> Kernel:
    """The kernel that multiplies for a node: its own by name, else of a multiplying kind, else the first."""
    own = re.compile(re.escape(node) + r"_myl\d+_\d+")

    def rank(kernel: Kernel) -> tuple[bool, bool]:
        named = own.fullmatch(kernel.name) is not None or node in kernel.name.split(FUSED)
        return not named, _MULTIPLYING.search(kernel.kind) is None

    return min((kernel for kernel in kernels if node in kernel.layers), key=rank)


def _type_of(kernel: Kernel) -> str | None:
    if not kernel.inputs:
        return None
    data = kernel.inputs[0]
    if data == "int8" and kernel.constants and "int8" not in kernel.constants:
        return f"int8 data, {kernel.constants[0]} weights"
    return data
