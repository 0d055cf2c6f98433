"""Converts results to plain data, as `--json` prints it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.stats import Verdict

JSON_SCHEMA = 4
"""Schema version of every object that `--json` prints; described in docs/files.md."""


def plain(value: Any) -> Any:
    """Convert any result to data that JSON can represent."""
    if isinstance(value, Bundle):
        return {"path": str(value.path.absolute()), "manifest": value.manifest.as_dict()}
    if hasattr(value, "as_dict"):
        return plain(value.as_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Verdict):
        return value.value
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON cannot represent it
    return json.loads(json.dumps(value))
