"""Kernels of a built engine: what they read and write, and in which type a node's data reaches its kernel.

`build_log` (TensorRT for RTX) and `inspector` (TensorRT) read the kernels; this module evaluates both.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cnnx.runtimes.layout import Layout

TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "int8": "int8"}
"""NVIDIA's names for types -> ours."""

# Kernels that do a layer's multiplications. Kernels that pad, transpose or requantize for a layer name it,
# too. "correlation", "gemm", "runtime_fusion": captured from TensorRT for RTX 1.7.1; "CaskConvolution",
# "CaskConvActPool", "MatrixMultiply": TensorRT issues #4020 and #2418; "fusion" (a product with what
# follows it): #4397.
_MULTIPLYING = re.compile("conv|correlation|gemm|matrixmultiply|fusion", re.IGNORECASE)
# How cnnx names the Q/DQ nodes of a tensor, and its Cast to FP16. TensorRT 10 replaces dots in the names of
# its kernels and their nodes (issue #4397: "layers_9").
_QUANTIZED, _DEQUANTIZED = re.compile(r"[._]quantized$"), re.compile(r"[._]dequantized$")
_NARROWED = re.compile(r"[._]fp16$")
_FLOATS = ("fp32", "fp16")
FUSED = " + "
"""Separates the names of fused layers."""
WEIGHTS = "Weights"
"""Name of the constant for a kernel's weights, if the builder reports their number and not their shape."""
WIDTHS = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "uint8": 1, "bool": 1, "int32": 4, "int64": 8}
"""Bytes of a value of each type."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that a kernel reads, writes or holds.

    Attributes:
        name: the builder's name for it.
        type: "int8", "fp16", "fp32", ...; empty if unknown.
        shape: lengths; a negative one is the number of images; empty if unknown.
        layout: how it lies in memory; None if that is not reported.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    layout: Layout | None = None

    def nbytes(self, batch: int = 1) -> int | None:
        """Its bytes without padding; None if its type or shape is unknown.

        Args:
            batch: number of images, if the shape leaves it free.
        """
        if self.type not in WIDTHS or not self.shape:
            return None
        return self.values(batch) * WIDTHS[self.type]

    def values(self, batch: int = 1) -> int:
        """Number of its values; see `nbytes`."""
        return math.prod(length if length >= 0 else batch for length in self.shape)

    @property
    def is_free(self) -> bool:
        """Whether the shape leaves the number of images free."""
        return any(length < 0 for length in self.shape)


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
        reads: its input tensors.
        writes: its output tensors.
        holds: its constants, as far as they are reported.
        tactic: NVIDIA's name for the implementation; empty if not reported.
        groups: groups of a convolution; 1 if not reported.
        touched: share of its first input that it reads; less than 1 if its stride skips positions.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    weight: str = ""
    reads: tuple[Tensor, ...] = ()
    writes: tuple[Tensor, ...] = ()
    holds: tuple[Tensor, ...] = ()
    tactic: str = ""
    groups: int = 1
    touched: float = 1.0

    @property
    def multiplies(self) -> bool:
        """Whether it is of a kind that does a layer's multiplications."""
        return _MULTIPLYING.search(self.kind) is not None


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
    types = {node: type_in(node, _kernel_of(node, kernels)) for node in nodes}
    return {node: found for node, found in types.items() if found is not None}


def of_nodes(found: Mapping[str, str], nodes: Collection[str]) -> dict[str, str]:
    """Types by the names of the graph's nodes, where TensorRT may have replaced dots; others are absent.

    A name that is that of two nodes then, or of two layers, belongs to none.
    """
    spelled, meant = Counter(map(_plain, nodes)), Counter(map(_plain, found))
    by_plain = {_plain(name): kind for name, kind in found.items()}
    types: dict[str, str] = {}
    for node in nodes:
        plain = _plain(node)
        if node in found:
            types[node] = found[node]
        elif spelled[plain] == meant[plain] == 1:
            types[node] = by_plain[plain]
    return types


def owners(kernels: Sequence[Kernel], nodes: Collection[str]) -> dict[str, Kernel]:
    """The kernel that does each node's work, by the names of the graph's nodes; see `of_nodes`."""
    named = {layer: layer for kernel in kernels for layer in kernel.layers}
    return {node: _kernel_of(layer, kernels) for node, layer in of_nodes(named, nodes).items()}


def mismatches(expected: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """One line per layer that has a different type than expected. A layer that is not found has none."""
    return tuple(
        f"{node}: {found[node]} instead of {wanted}"
        for node, wanted in expected.items()
        if node in found and found[node] != wanted
    )


def type_in(node: str, kernel: Kernel) -> str | None:
    """Type in which the data of one of a kernel's nodes reaches it; see `types_of`. None: unknown."""
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


def converts(kernel: Kernel) -> bool:
    """Whether a kernel names a node that converts its data: a cast to FP16, a quantization or its reverse."""
    kinds = (_NARROWED, _QUANTIZED, _DEQUANTIZED)
    return any(kind.search(layer) for layer in kernel.layers for kind in kinds)


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _kernel_of(node: str, kernels: Iterable[Kernel]) -> Kernel:
    """Kernel that does a node's multiplications: by its name, its kind, its weight, else the first one."""
    own = re.compile(re.escape(_plain(node)) + r"_myl\d+_\d+")

    def rank(kernel: Kernel) -> tuple[bool, bool, int]:
        named = own.fullmatch(_plain(kernel.name)) is not None or node in kernel.name.split(FUSED)
        weight = max((math.prod(constant.shape) for constant in kernel.holds), default=0)
        return not named, not kernel.multiplies, -weight

    return min((kernel for kernel in kernels if node in kernel.layers), key=rank)


def _narrows_inside(node: str, kernel: Kernel) -> bool:
    """Whether a kernel casts its data to FP16 itself before it reaches a node with FP16 weights.

    TensorRT for RTX 1.7.1 fuses products of few tokens with the FP32 LayerNormalization or Softmax before
    them. The node of an FP32 island has FP32 weights, and comes before the cast of its result.
    """
    casts = [layer for layer in kernel.layers if _NARROWED.search(layer)]
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
    quantized = {_QUANTIZED.sub("", layer) for layer in kernel.layers if _QUANTIZED.search(layer)}
    dequantized = {_DEQUANTIZED.sub("", layer) for layer in kernel.layers if _DEQUANTIZED.search(layer)}
    weights = dequantized - quantized  # stored as INT8, so that only activations are quantized in a kernel
    return bool(quantized & dequantized and weights) and kernel.constants.count("int8") >= len(weights)
