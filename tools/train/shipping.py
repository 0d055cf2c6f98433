"""Shared by the training tools: reports accuracy, and writes weights under a name with their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from cnnx.stats import wilson


def report(what: str, right: int, n: int) -> str:
    """Print and return an accuracy with its 95 % Wilson interval."""
    interval = wilson(right / n, n)
    text = f"{right} of {n} right: {right / n:.2%} (95 % {interval.low:.2%} to {interval.high:.2%})"
    print(f"{what}: {text}", flush=True)
    return text


def ship(name: str, state: Mapping[str, Tensor], made: Mapping[str, Any], *, folder: Path) -> Path:
    """Write weights with metadata about the training, named by the start of their SHA-256."""
    # A single metadata entry: safetensors writes several in random order.
    content = save(dict(state), metadata={"made": json.dumps(made)})
    file = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
