"""Class names and shell commands, as packages need them."""

from __future__ import annotations

import re
import shlex

from cnnx.bundle import Bundle


def class_names(bundle: Bundle) -> tuple[str, ...]:
    """Class names without control characters; "0", "1" and so on if the bundle has none."""
    names = bundle.labels or tuple(map(str, range(bundle.manifest.classes)))
    return tuple(re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", name) for name in names)


def trtexec(bundle: Bundle, *, onnx: str, engine: str) -> str:
    """The command that builds a strongly typed engine from a graph with the bundle's input and batches."""
    image = bundle.manifest.inputs[0]
    parts = ["trtexec", f"--onnx={onnx}", "--stronglyTyped", f"--saveEngine={engine}"]
    if image.shape[0] is None:
        smallest, largest = bundle.manifest.batch
        name = image.name if re.fullmatch(r"[\w./-]+", image.name) else f"'{image.name}'"
        for which, batch in (("min", smallest), ("opt", largest), ("max", largest)):
            shape = "x".join(map(str, (batch, *image.shape[1:])))
            parts.append(f"--{which}Shapes={name}:{shape}")
    return " ".join(map(shlex.quote, parts))


def safe_name(bundle: Bundle) -> str:
    """The bundle's name for folders and addresses: letters, digits, "_", "." and "-"."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", bundle.manifest.name).lstrip("-.") or "network"
