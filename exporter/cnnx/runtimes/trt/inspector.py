"""What TensorRT's engine inspector says of an engine's layers: a pure function of its JSON.

Two forms, by NVIDIA's page "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x":

    10: {"Layers": [{"Name", "LayerType", "Inputs": [{"Name", "Format/Datatype": "Row major Int8 format"}],
        "Outputs", "Weights": {"Type": "Int8", "Count"}, "Metadata": "[ONNX Layer: conv1]\\u001e[..."}],
        "Bindings": ["input", "logits"]}
    11: "Format/Datatype" is split into a format and a datatype; "Bindings" became "I/O Tensors".

Layers of TensorRT 10 as in issues #4020 (Cask kernels) and #4397 (Myelin's). An engine that was not built
with ProfilingVerbosity.DETAILED has names alone. What does not fit is skipped, so that a layer that cannot
be read is reported as not found rather than taken for right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cnnx.runtimes.kernels import FUSED, Kernel

# These move data for a layer and bear its name; they say nothing of how the layer computes.
_BOOKKEEPING = {"reformat", "noop", "constant", "shuffle", "signal", "wait"}
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.+?)\](?=\w*\s*(?:[\x1e\x1f]|\[ONNX Layer: |$))")
# Read in this order: "Thirty-two wide channel vectorized row major Int8 format", "Channel major FP16 format
# where channel % 8 == 0", "Half", "Row major linear FP32", "Float". "N/A due to dynamic shapes" is none.
_WORDS = (
    ("int8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("bf16", re.compile(r"\b(?:bf16|bfloat16)\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\b(?:fp16|half|float16)\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\b(?:fp32|float|float32)\b", re.IGNORECASE)),
)


def parse_kernels(text: str) -> tuple[Kernel, ...]:
    """Every layer of an engine.

    Args:
        text: of `EngineInspector.get_engine_information` in the JSON format; either form.

    Returns:
        One kernel a layer, in the order they run; none where the text is no such JSON.
    """
    try:
        # Not strict: node names in "Metadata" may be parted by raw control characters.
        said = json.loads(text, strict=False)
    except ValueError:
        return ()
    layers = said.get("Layers") if isinstance(said, dict) else None
    return tuple(map(_kernel, layers)) if isinstance(layers, list) else ()


def _kernel(layer: Any) -> Kernel:
    if not isinstance(layer, dict):
        return Kernel(str(layer), "", (), (), (), ())
    name, kind = str(layer.get("Name", "")), str(layer.get("LayerType", ""))
    nodes = dict.fromkeys([*_ONNX_LAYER.findall(str(layer.get("Metadata", "")).strip()), *name.split(FUSED)])
    return Kernel(
        name=name,
        kind=kind,
        inputs=_types(layer.get("Inputs")),
        constants=_types([layer[key] for key in ("Weights", "Bias") if key in layer])
        or _types(layer.get("Constants")),
        outputs=_types(layer.get("Outputs")),
        layers=() if kind.lower() in _BOOKKEEPING else tuple(nodes),
    )


def _types(tensors: Any) -> tuple[str, ...]:
    """Types of those tensors that have one; a first that has none hides the others: it is the data."""
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
