"""Parses the layers of an engine from the JSON of TensorRT's engine inspector.

There are two forms (NVIDIA's page "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"):

    10: {"Layers": [{"Name", "LayerType", "Inputs": [{"Name", "Format/Datatype": "Row major Int8 format"}],
        "Outputs", "Weights": {"Type": "Int8", "Count"}, "Metadata": "[ONNX Layer: conv1]\\u001e[..."}],
        "Bindings": ["input", "logits"]}
    11: "Format/Datatype" is split into a format and a datatype; "Bindings" became "I/O Tensors".

Layers of TensorRT 10 are as in issues #4020 (Cask kernels) and #4397 (Myelin's). An engine that was not
built with ProfilingVerbosity.DETAILED has only names. Entries that do not match are skipped, so a layer that
cannot be read is reported as not found rather than assumed to be right.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cnnx.runtimes.kernels import FUSED, WEIGHTS, Kernel, Tensor, converts, nodes_in
from cnnx.runtimes.layout import layout_in

# Kinds that move data for a layer and have its name; they do not show in which type the layer computes.
_BOOKKEEPING = {"reformat", "noop", "constant", "shuffle", "signal", "wait"}
_FLOATS = ("fp32", "fp16")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.+?)\](?=\w*\s*(?:[\x1e\x1f]|\[ONNX Layer: |$))")
# Checked in this order. Examples: "Thirty-two wide channel vectorized row major Int8 format", "Channel major
# FP16 format where channel % 8 == 0", "Half", "Row major linear FP32", "Float". "N/A due to dynamic shapes"
# is not a type.
_WORDS = (
    ("int8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("bf16", re.compile(r"\b(?:bf16|bfloat16)\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\b(?:fp16|half|float16)\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\b(?:fp32|float|float32)\b", re.IGNORECASE)),
)
# Types that no layer multiplies in, but that have a width.
_OTHERS = tuple(
    (name, re.compile(rf"\b{name}\b", re.IGNORECASE)) for name in ("uint8", "bool", "int32", "int64")
)


def parse_kernels(text: str, names: Collection[str] = ()) -> tuple[Kernel, ...]:
    """Layers of an engine.

    Args:
        text: output of `EngineInspector.get_engine_information` in JSON format, in either form.
        names: known node names; see `nodes_in`.

    Returns:
        One kernel per layer, in execution order; empty if the text is not such JSON.
    """
    try:
        # Not strict: node names in "Metadata" may be separated by raw control characters.
        parsed = json.loads(text, strict=False)
    except ValueError:
        return ()
    layers = parsed.get("Layers") if isinstance(parsed, dict) else None
    return tuple(_kernel(layer, names) for layer in layers) if isinstance(layers, list) else ()


def _kernel(layer: Any, names: Collection[str]) -> Kernel:
    if not isinstance(layer, dict):
        return Kernel(str(layer), "", (), (), (), ())
    name, kind = str(layer.get("Name", "")), str(layer.get("LayerType", ""))
    metadata = str(layer.get("Metadata", ""))
    nodes = dict.fromkeys([*nodes_in(metadata, _ONNX_LAYER, names), *name.split(FUSED)])
    kernel = Kernel(
        name=name,
        kind=kind,
        inputs=_types(layer.get("Inputs")),
        constants=_types([layer[key] for key in ("Weights", "Bias") if key in layer])
        or _types(layer.get("Constants")),
        outputs=_types(layer.get("Outputs")),
        weight=next(iter(_types([layer.get("Weights")])), "") or _largest(layer.get("Constants")),
        layers=() if kind.lower() in _BOOKKEEPING else tuple(nodes),
        reads=_tensors(layer.get("Inputs")),
        writes=_tensors(layer.get("Outputs")),
        holds=_held(layer),
        tactic=str(layer.get("TacticName", "")),
        groups=groups if isinstance(groups := layer.get("Groups"), int) else 1,
        touched=_touched(_lengths(layer.get("Kernel")), _lengths(layer.get("Stride"))),
    )
    return dataclasses.replace(kernel, inputs=()) if _is_unclear(kernel) else kernel


def _is_unclear(kernel: Kernel) -> bool:
    """Whether the type in which a fused kernel multiplies does not follow from what is reported of it.

    Myelin fuses a cast or a quantization with the layer after it, and reports the type before it. With the
    types of the constants it is known what the layer reads; without them nothing is.
    """
    if not kernel.inputs or kernel.inputs[0] not in _FLOATS:
        return False
    if not kernel.constants:
        return converts(kernel)
    fused = len(kernel.layers) > 1 and not kernel.kind.lower().startswith("cask")
    return fused and kernel.weight in _FLOATS and kernel.weight not in kernel.inputs and not converts(kernel)


def _largest(constants: Any) -> str:
    """Type of the constant with the most values, which is the weight; empty if none has a shape."""
    sized = [each for each in constants if isinstance(each, dict)] if isinstance(constants, list) else []
    shapes = [each.get("Dimensions") for each in sized]
    counts = [
        math.prod(shape) if isinstance(shape, list) and all(isinstance(n, int) for n in shape) else 0
        for shape in shapes
    ]
    if not any(counts):
        return ""
    return _type(sized[counts.index(max(counts))]) or ""


def _types(tensors: Any) -> tuple[str, ...]:
    """Types of the tensors that have one; empty if the first, which is the data, has none."""
    found = (
        [_type(tensor) for tensor in tensors if isinstance(tensor, dict)] if isinstance(tensors, list) else []
    )
    return () if found and found[0] is None else tuple(kind for kind in found if kind is not None)


def _type(tensor: Mapping[str, Any], words: Sequence[tuple[str, re.Pattern[str]]] = _WORDS) -> str | None:
    fields = {key.lower().replace(" ", ""): str(value) for key, value in tensor.items()}
    for key in ("datatype", "format/datatype", "type", "format"):
        for name, word in words:
            if word.search(fields.get(key, "")):
                return name
    return None


def _tensors(tensors: Any) -> tuple[Tensor, ...]:
    found = [each for each in tensors if isinstance(each, dict)] if isinstance(tensors, list) else []
    return tuple(
        Tensor(
            str(each.get("Name", "")),
            _type(each, (*_WORDS, *_OTHERS)) or "",
            _lengths(each.get("Dimensions")),
            layout_in(str(each.get("Format/Datatype") or each.get("Format") or "")),
        )
        for each in found
    )


def _held(layer: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Constants: with shapes as Myelin reports them, or the type and number of weights and biases."""
    counted = [
        Tensor(key, _type(each) or "", _lengths([each.get("Count")]))
        for key in (WEIGHTS, "Bias")
        if isinstance(each := layer.get(key), dict)
    ]
    return tuple(counted) or _tensors(layer.get("Constants"))


def _touched(kernel: Sequence[int], stride: Sequence[int]) -> float:
    """Share of the positions that a convolution reads: a quarter with a kernel of 1x1 and a stride of 2."""
    if len(kernel) != len(stride) or min((*kernel, *stride), default=0) < 1:
        return 1.0
    return math.prod(min(1.0, width / step) for width, step in zip(kernel, stride, strict=True))


def _lengths(lengths: Any) -> tuple[int, ...]:
    """Lengths of a tensor; empty if they are not all numbers."""
    whole = isinstance(lengths, list) and all(isinstance(each, int) for each in lengths)
    return tuple(lengths) if whole else ()
