"""Parses the kernels of an engine from the log of a TensorRT for RTX build.

A build with ProfilingVerbosity.DETAILED logs, at VERBOSE severity, one line per kernel under "Layers:":

    Name: conv1_myl0_1, LayerType: correlation, Inputs: [ { Name: x, ..., Datatype: Int8, ... }],
    Constants: [ { ..., Datatype: Int8, ... }], Outputs: [ ... ], ..., Metadata: [ONNX Layer: conv1][ONNX ...

The format is not documented (captured from TensorRT for RTX 1.7.1). Lines that do not match are skipped, so
a layer that cannot be read is reported as not found rather than assumed to be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from cnnx.runtimes.kernels import TYPES, Kernel, Tensor, nodes_in, types_of
from cnnx.runtimes.layout import Layout

_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], (?:TacticName|StreamId): "
    r".*Metadata:(?P<layers>.*)$",
    re.MULTILINE,
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_TENSOR = re.compile(
    r"Name: ([^,{}]*), Dimensions: \[([-\d,]*)\](?:, Strides: \[([-\d,]+)\])?[^{}]*?Datatype: (\w+)"
)
_SIZED = re.compile(r"Dimensions: \[([\d,]*)\][^{}]*?Datatype: (\w+)")
# A 1x1 convolution that became a matrix product has a suffix: "[ONNX Layer: x]__gemm_from_conv1x1".
_LAYER = re.compile(r"\[ONNX Layer: (.+?)\](?=\w*\s*(?:\[ONNX Layer: |$))")


def parse_kernels(log: str, names: Collection[str] = ()) -> tuple[Kernel, ...]:
    """Kernels in a log, in execution order; for `names` see `nodes_in`."""
    return tuple(
        Kernel(
            name=found["name"],
            kind=found["kind"],
            inputs=_types(found["inputs"]),
            constants=_types(found["constants"]),
            outputs=_types(found["outputs"]),
            layers=nodes_in(found["layers"], _LAYER, names),
            weight=_largest(found["constants"]),
            reads=_tensors(found["inputs"]),
            writes=_tensors(found["outputs"]),
            holds=_tensors(found["constants"]),
        )
        for found in _LINE.finditer(log)
    )


def layer_types(log: str, names: Collection[str] = ()) -> dict[str, str]:
    """Type in which each ONNX node's data reaches its kernel, from the builder's whole log."""
    return types_of(parse_kernels(log, names))


def _largest(section: str) -> str:
    """Type of the tensor with the most values; empty if none has a shape."""
    found = _SIZED.findall(section)
    _, word = max(
        found, key=lambda tensor: math.prod(map(int, filter(None, tensor[0].split(",")))), default=("", "")
    )
    return TYPES.get(word.lower(), word.lower())


def _tensors(section: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name,
            TYPES.get(word.lower(), word.lower()),
            _numbers(lengths),
            Layout(_numbers(strides)) if strides else None,
        )
        for name, lengths, strides, word in _TENSOR.findall(section)
    )


def _numbers(words: str) -> tuple[int, ...]:
    return tuple(map(int, filter(None, words.split(","))))


def _types(section: str) -> tuple[str, ...]:
    return tuple(TYPES.get(word.lower(), word.lower()) for word in _DATATYPE.findall(section))
