"""What a TensorRT build says of its layers, read back: a pure function of text.

A build with ProfilingVerbosity.DETAILED prints, at VERBOSE severity, one line a kernel under "Layers:":

    Name: conv1_myl0_1, LayerType: correlation, Inputs: [ { Name: x, ..., Datatype: Int8, ... }],
    Constants: [ { ..., Datatype: Int8, ... }], Outputs: [ ... ], ..., Metadata: [ONNX Layer: conv1][ONNX ...

The format is documented nowhere (captured from TensorRT for RTX 1.7.1); what does not fit is skipped, so
that a layer that cannot be read is reported as not found rather than taken for right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "int8": "int8"}
# Kernels that do a layer's multiplying. Others name the layer too: those that pad, transpose or requantize
# for it.
_MULTIPLYING = ("correlation", "gemm", "runtime_fusion")

_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], (?:TacticName|StreamId): "
    r".*Metadata:(?P<layers>.*)$",
    re.MULTILINE,
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
# A 1x1 convolution that became a matrix product has a suffix: "[ONNX Layer: x]__gemm_from_conv1x1".
_LAYER = re.compile(r"\[ONNX Layer: (.+?)\](?=\w*\s*(?:\[ONNX Layer: |$))")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One line of the log.

    Attributes:
        name: for a kernel that is one ONNX node's own, that node's name with a suffix such as "_myl0_1".
        kind: "correlation", "gemm", "kgen" (generated, pointwise mostly), ...
        inputs: type of each input: "int8", "fp16", "fp32", or the log's own word.
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


def parse_kernels(log: str) -> tuple[Kernel, ...]:
    """Every kernel that a log names, in the order they run."""
    return tuple(
        Kernel(
            name=found["name"],
            kind=found["kind"],
            inputs=_types(found["inputs"]),
            constants=_types(found["constants"]),
            outputs=_types(found["outputs"]),
            layers=tuple(_LAYER.findall(found["layers"].strip())),
        )
        for found in _LINE.finditer(log)
    )


def layer_types(log: str) -> dict[str, str]:
    """In which type each ONNX node's data reached the kernel that does its work.

    Args:
        log: everything the builder logged.

    Returns:
        node name -> "int8", "fp16", "fp32"; nodes that no kernel names are absent. "int8" says that
        weights were INT8 as well: INT8 data beside other weights is reported as "int8 data, fp16 weights".
    """
    kernels = parse_kernels(log)
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
    naming = [kernel for kernel in kernels if node in kernel.layers]
    return min(
        naming, key=lambda kernel: (own.fullmatch(kernel.name) is None, kernel.kind not in _MULTIPLYING)
    )


def _type_of(kernel: Kernel) -> str | None:
    if not kernel.inputs:
        return None
    data = kernel.inputs[0]
    if data == "int8" and kernel.constants and "int8" not in kernel.constants:
        return f"int8 data, {kernel.constants[0]} weights"
    return data


def _types(section: str) -> tuple[str, ...]:
    return tuple(_TYPES.get(word.lower(), word.lower()) for word in _DATATYPE.findall(section))
