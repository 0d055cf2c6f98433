"""Times of single layers, and the share that only converts or moves data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cnnx.runtimes.kernels import FUSED

LayerKind = Literal["compute", "cast", "reformat", "quantize"]

# ONNX Runtime's operators; ReorderInput and ReorderOutput convert to and from its blocked layout.
_OPERATORS: dict[str, LayerKind] = {
    "Cast": "cast",
    "QuantizeLinear": "quantize",
    "DequantizeLinear": "quantize",
    "Transpose": "reformat",
    "ReorderInput": "reformat",
    "ReorderOutput": "reformat",
}
# TensorRT's names: "input_QuantizeLinear", "QuantLinearNode__838", "Cast_7", and of a copy, "Reformatting
# CopyNode for Input Tensor 0 to conv1 + relu1", where what follows is the layer that it is for.
_COPY = "Reformatting CopyNode"
_NAMES: tuple[tuple[LayerKind, re.Pattern[str]], ...] = (
    ("reformat", re.compile(r"reformat", re.IGNORECASE)),
    ("quantize", re.compile(r"quant(?:ize|linear)", re.IGNORECASE)),
    ("cast", re.compile(r"(?:^|[_/])cast", re.IGNORECASE)),
)
# A generated kernel is named by its operators: "__myl_MulMinMaxRounCast_myl0_2" (TensorRT for RTX 1.7.1, and
# TensorRT issue #4397). Rounding is quantization; without arithmetic, a kernel casts or moves data.
_GENERATED = re.compile(r"__myl_((?:[A-Z][a-z0-9]*)+)_")
_MOVES = frozenset({"Move", "Repl", "Resh", "Tran"})
_CASTS = _MOVES | {"Cast", "Conc"}
_ROUNDS = _CASTS | {"Max", "Min", "Mul", "Roun"}


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Time of a layer of the runtime, which may combine several layers of the graph.

    Attributes:
        name: the runtime's name for it.
        op: operator; empty if the runtime does not report it.
        kind: "compute", or a conversion of data: "cast", "reformat" (layout), "quantize" (Q and DQ).
        median_ns: median over the runs.
    """

    name: str
    op: str
    kind: LayerKind
    median_ns: float


def kind_of_operator(op: str) -> LayerKind:
    """Kind of a layer, by its ONNX or ONNX Runtime operator."""
    return _OPERATORS.get(op, "compute")


def kind_of_name(name: str) -> LayerKind:
    """Kind of a layer, by its TensorRT name. A fused layer computes if one of its parts does."""
    if name.startswith(_COPY):
        return "reformat"
    if generated := _GENERATED.match(name):
        return _kind_of_operators(frozenset(re.findall("[A-Z][a-z0-9]*", generated[1])))
    kinds = [_kind(part) for part in name.split(FUSED)]
    return "compute" if "compute" in kinds else kinds[0]


def shares(layers: Iterable[LayerTime]) -> dict[LayerKind, float]:
    """Share of the total time by kind, 0..1; empty if the total is zero."""
    layers = tuple(layers)
    total = sum(layer.median_ns for layer in layers)
    kinds: Sequence[LayerKind] = ("compute", "cast", "reformat", "quantize")
    if not total:
        return {}
    return {kind: sum(layer.median_ns for layer in layers if layer.kind == kind) / total for kind in kinds}


def _kind_of_operators(operators: frozenset[str]) -> LayerKind:
    if "Roun" in operators and operators <= _ROUNDS:
        return "quantize"
    if "Cast" in operators and operators <= _CASTS:
        return "cast"
    return "reformat" if operators <= _MOVES else "compute"


def _kind(name: str) -> LayerKind:
    return next((kind for kind, words in _NAMES if words.search(name)), "compute")
