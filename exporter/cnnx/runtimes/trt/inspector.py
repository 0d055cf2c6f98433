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

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from cnnx.runtimes.kernels import FUSED, Kernel, nodes_in

# Kinds that move data for a layer and have its name; they do not show in which type the layer computes.
_BOOKKEEPING = {"reformat", "noop", "constant", "shuffle", "signal", "wait"}
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
    return Kernel(
        name=name,
        kind=kind,
        inputs=_types(layer.get("Inputs")),
        constants=_types([layer[key] for key in ("Weights", "Bias") if key in layer])
        or _types(layer.get("Constants")),
        outputs=_types(layer.get("Outputs")),
        weight=next(iter(_types([layer.get("Weights")])), ""),
        layers=() if kind.lower() in _BOOKKEEPING else tuple(nodes),
    )


def _types(tensors: Any) -> tuple[str, ...]:
    """Types of the tensors that have one; empty if the first, which is the data, has none."""
    found = (
        [_type(tensor) for tensor in tensors if isinstance(tensor, dict)] if isinstance(tensors, list) else []
    )
    return () if found and found[0] is None else tuple(kind for kind in found if kind is not None)


def _type(tensor: Mapping[str, Any]) -> str | None:
    fields = {key.lower().replace(" ", ""): str(value) for key, value in tensor.items()}
    for key in ("datatype", "format/datatype", "type", "format"):
        for name, word in _WORDS:
            if word.search(fields.get(key, "")):
                return name
    return None
